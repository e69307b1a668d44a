"""The MLPs under penalty, found among the crosscoder's hookpoints."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations import Scaling
from xtalk.data import ALL, Counted
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights
from xtalk.training.loss_metric import LossMetric
from xtalk.training.objective import PenalisedMlp
from xtalk.training.spliced import (
    SPLICES,
    SplicedMlp,
    SplicedTogether,
    SplicingModel,
    Together,
    measure_spliced_mlps,
    measure_together,
)

_NOTHING = 1e-10  # of the output's mean square, which rounding leaves of a constant


@runtime_checkable
class HasMlps(Protocol):
    """What penalties need of a `LanguageModel`."""

    def mlp_weights(self, block: int) -> MlpWeights:
        """The weights of one block's MLP, in float32."""
        ...


Models = HasMlps | Mapping[str, HasMlps]
"""The model whose MLPs are under penalty, or several by the name that their hookpoints carry."""


def penalised_mlps(
    hook_names: Sequence[str],
    model: Models,
    scaling: Scaling,
    sample: Iterable[Float[Tensor, "B P D"]],
    metric: LossMetric | None = None,
) -> list[PenalisedMlp]:
    """Every MLP whose input (ln2) is among the hookpoints.

    model: one model, or several by name, whose hookpoints are then called NAME/blocks.0.ln2. sample: unscaled
    activations, over which each MLP output's variance is measured. metric: of the outputs, where errors of
    them do not count alike. Errors: XtalkError where no hookpoint is an MLP's input.
    """
    points = list(map(Hookpoint.parse, hook_names))
    weights = {
        p: _owner(point, model).mlp_weights(point.block)
        for p, point in enumerate(points)
        if point.site == "ln2"
    }
    if not weights:
        raise XtalkError(
            f"penalties need an MLP's input among the hookpoints; there is none in {', '.join(hook_names)}; "
            "add such as blocks.0.ln2, or leave the penalties out"
        )
    if metric is not None:
        weights = {p: metric.turned(points[p], mlp) for p, mlp in weights.items()}
    device = scaling.factor_P.device
    weights = {p: mlp.to(device) for p, mlp in weights.items()}
    variances = _output_variances(weights, sample)
    if silent := [hook_names[p] for p, variance in variances.items() if not variance > 0]:
        raise XtalkError(
            f"the output of the MLP at {silent[0]} does not vary, so that its penalty divides by zero; leave "
            "that hookpoint out, or leave the penalties out"
        )
    return [PenalisedMlp(mlp, p, float(scaling.factor_P[p]), variances[p]) for p, mlp in weights.items()]


def spliced_mlps(
    mlps: Sequence[PenalisedMlp],
    hook_names: Sequence[str],
    model: Models,
    scaling: Scaling,
    sample: Sequence[Int[Tensor, "m S"]],
    names: Iterable[str],
    counted: Counted = ALL,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[PenalisedMlp]:
    """The MLPs made ready for penalties, by name, that run the model on with their outputs.

    sample: token sequences, on which is measured what ablating each MLP costs at the tokens that count.
    progress(done, total): as `measure_spliced_mlps` gives it, for each model. Errors: XtalkError where a
    penalty takes resid_mid from the crosscoder and that has none, or the model cannot be run on.
    """
    points = list(map(Hookpoint.parse, hook_names))
    takes_mid = [name for name in names if name in SPLICES and SPLICES[name].crosscoder_resid_mid]
    mids: dict[int, tuple[int, float]] = {}
    by_model: dict[int, tuple[SplicingModel, list[int]]] = {}
    for mlp in mlps:
        point = points[mlp.hook_index]
        mid = replace(point, site="resid_mid")
        if mid in points:
            p = points.index(mid)
            mids[mlp.hook_index] = p, float(scaling.factor_P[p])
        elif takes_mid:
            raise XtalkError(f"the penalty {takes_mid[0]} needs the hookpoint {mid}; add it, or leave it out")
        owner = _owner(point, model)
        if not isinstance(owner, SplicingModel):
            raise XtalkError(f"the penalties {', '.join(SPLICES)} run the model on; give a LanguageModel")
        by_model.setdefault(id(owner), (owner, []))[1].append(point.block)
    measured = {
        key: measure_spliced_mlps(owner, blocks, sample, counted, progress)
        for key, (owner, blocks) in by_model.items()
    }
    return [
        replace(
            mlp,
            spliced=measured[id(_owner(points[mlp.hook_index], model))][points[mlp.hook_index].block],
            resid_mid=mids.get(mlp.hook_index),
        )
        for mlp in mlps
    ]


def spliced_together(
    mlps: Sequence[PenalisedMlp],
    sample: Sequence[Int[Tensor, "m S"]],
    names: Iterable[str],
    counted: Counted = ALL,
) -> list[SplicedTogether]:
    """The MLPs of each model that penalties, by name, rebuild at once; mlps: from `spliced_mlps`.

    Errors: XtalkError where a model has not several.
    """
    by_model: dict[int, dict[int, SplicedMlp]] = {}
    for place, mlp in enumerate(mlps):
        assert mlp.spliced is not None
        by_model.setdefault(id(mlp.spliced.model), {})[place] = mlp.spliced
    kinds: dict[Together, None] = {}
    for name in names:
        if name in SPLICES and (kind := SPLICES[name].together) is not None:
            kinds[kind] = None
    return [
        measure_together(kind, of_model, sample, counted) for kind in kinds for of_model in by_model.values()
    ]


def _owner(point: Hookpoint, model: Models) -> HasMlps:
    """The model that a hookpoint is of."""
    if not isinstance(model, Mapping):
        return model
    if point.model is None or point.model not in model:
        raise XtalkError(f"hookpoint {point} is of none of the models given: {', '.join(model)}")
    return model[point.model]


@torch.no_grad()
def _output_variances(
    weights: Mapping[int, MlpWeights], sample: Iterable[Float[Tensor, "B P D"]]
) -> dict[int, float]:
    """Mean squared deviation of each MLP's output from its mean, by place of its input in P.

    0 where it is within rounding.
    """
    tokens = 0
    squares = dict.fromkeys(weights, 0.0)
    totals: dict[int, Tensor] = {
        p: torch.zeros_like(mlp.b_out, dtype=torch.float64) for p, mlp in weights.items()
    }
    for x_BPD in sample:
        tokens += len(x_BPD)
        for p, mlp in weights.items():
            output_BD = mlp(x_BPD[:, p]).double()
            squares[p] += output_BD.square().sum().item()
            totals[p] += output_BD.sum(0)
    variances = {p: squares[p] / tokens - (totals[p] / tokens).square().sum().item() for p in weights}
    return {p: v if v > _NOTHING * squares[p] / tokens else 0.0 for p, v in variances.items()}

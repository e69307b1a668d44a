"""Differentiable interaction penalties: loss terms that make crosscoders computationally sparse.

docs/method.md, The penalties. Each term takes the contributions at one MLP, the MLP's true output and that
output's variance, and returns a scalar to be averaged over blocks. `PENALTIES` names them; a run weighs any
combination.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import dominant_share
from xtalk.interactions.sum_minus_max import sum_minus_max_on_path


@dataclass(frozen=True)
class MlpTarget:
    """What an MLP really put out, and that output's variance over text: mean ||output - its mean||^2."""

    output_BD: Float[Tensor, "B D"]
    variance: float


Penalty = Callable[[MlpContributions, MlpTarget], Float[Tensor, ""]]


def _weighted_sum_minus_max(mlp: MlpContributions, weight_N: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """Mean over tokens and neurons of weight_k (sum_i |p_ki| - max_i |p_ki|), summed over paths."""
    codes = mlp.codes
    by_path = [
        sum_minus_max_on_path(path.M_LN, codes.values, codes.latents, mlp.dominant_BN, weight_N)
        for path in mlp.paths
    ]
    return torch.stack(by_path).sum() / (len(codes.values) * len(weight_N))


def sum_minus_max(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """The paper's penalty: mean over tokens and neurons of sum_i |p_ki| - max_i |p_ki| (paper section 4)."""
    return _weighted_sum_minus_max(mlp, torch.ones_like(mlp.value.M_LN[0]))


def out_norm(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """The paper's penalty, neurons weighted by ||W_out[k]|| over its mean: for ordinary MLPs, T scaled.

    The norm is that of the W_out at hand: in a loss metric (`training/loss_metric.py`) a direction of the
    output counts what it costs the loss.
    """
    return _weighted_sum_minus_max(mlp, mlp.output_norm_N / mlp.output_norm_N.mean())


def relative(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """1 - dominant share, mean over tokens and neurons: unchanged when all contributions shrink alike."""
    return 1 - dominant_share(mlp).mean()


def residual(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """The true residual: squared change of the output when only dominant contributions stay; as `keep`."""
    return _relative_error(mlp.output(mlp.totals), mlp.output(mlp.dominant), target)


FEW_HOT: tuple[int | None, ...] = (1, 2, 4, 8, None)
"""How many contributions of each neuron penalties keep that train for every number; None: all."""


def keep(m: int | None) -> Penalty:
    """Reconstruction error of the true MLP output from the m dominant contributions of each neuron.

    None keeps all. Squared error over the output's variance, times D: counted like one more hookpoint in
    scaled space.
    """

    def keep_m(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
        return _relative_error(target.output_BD, mlp.output(mlp.keep(m)), target)

    return keep_m


def keep_each(ms: Sequence[int | None]) -> Penalty:
    """The mean of `keep(m)` over several m: none of them is served at another's cost.

    Over FEW_HOT it is the penalty `keep_few`. A training step counts one of its terms, drawn
    (`training/sampling.py`).
    """

    def keep_mean(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
        return torch.stack([keep(m)(mlp, target) for m in ms]).mean()

    return keep_mean


def _relative_error(
    true_BD: Float[Tensor, "B D"], rebuilt_BD: Float[Tensor, "B D"], target: MlpTarget
) -> Float[Tensor, ""]:
    return (true_BD - rebuilt_BD).square().sum(1).mean() * (true_BD.shape[1] / target.variance)


PENALTIES: dict[str, Penalty] = {
    "sum_minus_max": sum_minus_max,
    "out_norm": out_norm,
    "relative": relative,
    "residual": residual,
    "keep_one": keep(1),
    "keep_2": keep(2),
    "keep_4": keep(4),
    "full_sum": keep(None),
    "keep_few": keep_each(FEW_HOT),
}


def penalty(name: str) -> Penalty:
    """The penalty of that name. Errors: XtalkError names the known ones."""
    if name not in PENALTIES:
        raise XtalkError(f"unknown penalty {name!r}; expected one of {', '.join(PENALTIES)}")
    return PENALTIES[name]

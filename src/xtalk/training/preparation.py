"""What a training reads of its stream beforehand, in one pass: the same for all crosscoders of a sweep."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk import ranks
from xtalk.activations import ActivationBatches, Scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.training.config import TrainingConfig, calibration_tokens
from xtalk.training.loss_metric import LossMetric
from xtalk.training.mlps import Models, penalised_mlps, spliced_mlps, spliced_together
from xtalk.training.objective import PenalisedMlp
from xtalk.training.spliced import SPLICES, SplicedTogether

START_NOISE = 1.0
"""Of a decoder direction at the start, for each part that it has of a token."""
SPLICE_SAMPLE = 32
"""Sequences on which ablating an MLP is measured."""

Report = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Preparation:
    """Where training starts, and the MLPs under penalty.

    direction_LPD: the decoder's first directions, in scaled space; None for crosscoders that exist already.
    mlps: in the order of their hookpoints; none where nothing is penalised. together: those that some penalty
    rebuilds at once.
    """

    direction_LPD: Float[Tensor, "L P D"] | None
    mlps: tuple[PenalisedMlp, ...]
    together: tuple[SplicedTogether, ...]


def prepare(
    config: CrosscoderConfig,
    training: TrainingConfig,
    stream: ActivationBatches,
    model: Models,
    scaling: Scaling,
    *,
    metric: LossMetric | None = None,
    penalties: Collection[str] | None = None,
    fresh: bool = True,
    progress: Report = lambda what, done, total: None,
) -> Preparation:
    """Read the stream's next 16,384 tokens for all that training has to know; the stream stays where it was.

    penalties: the names that some crosscoder of these hookpoints, model and seed is to be trained with, by
    default those of `training`. fresh: whether they start anew. metric, model: as `train_crosscoder` takes
    them. progress(what, done, total).
    Errors: XtalkError for penalties that these hookpoints or this model cannot have.
    """
    names = training.penalties if penalties is None else penalties
    start, mlps = _Deviations(config.d_sae, stream, scaling, training.seed), list[PenalisedMlp]()
    together: list[SplicedTogether] = []
    with ranks.alone(), stream.rewound():  # every rank for itself: all start alike
        seen = calibration_batches(stream, progress, "start values")
        if fresh:
            seen = start.watched(seen)
        if names:
            mlps = penalised_mlps(config.hook_names, model, scaling, seen, metric)
        elif fresh:
            deque(seen, maxlen=0)
    if any(name in SPLICES for name in names):
        tokens_nS = torch.from_numpy(stream.source.sequences.tokens[:SPLICE_SAMPLE].astype("int64"))
        device = scaling.factor_P.device
        sample = tokens_nS.to(device).split(1)  # logits of large vocabularies are large
        with torch.autocast(device.type, torch.bfloat16, enabled=training.uses_bfloat16(device)):
            mlps = spliced_mlps(
                mlps,
                config.hook_names,
                model,
                scaling,
                sample,
                names,
                stream.counted,
                lambda done, total: progress("ablate MLPs", done, total),
            )
            together = spliced_together(mlps, sample, names, stream.counted)
    return Preparation(start.directions() if fresh else None, tuple(mlps), tuple(together))


class _Deviations:
    """How random tokens deviate from the mean: directions that the data has, so that few latents start dead.

    With as much noise, for text has tokens (such as its first) that are the same many times.
    """

    def __init__(self, count: int, stream: ActivationBatches, scaling: Scaling, seed: int) -> None:
        self._scaling, self._B = scaling, stream.batch_tokens
        self._generator = torch.Generator().manual_seed(seed)
        tokens = calibration_tokens(self._B) // self._B * self._B
        self._chosen_L = torch.randint(tokens, (count,), generator=self._generator)
        self._direction_LPD = scaling.mean_PD.new_empty(count, *scaling.mean_PD.shape)

    def watched(self, batches: Iterator[Float[Tensor, "B P D"]]) -> Iterator[Float[Tensor, "B P D"]]:
        """The batches, out of which the chosen tokens are taken as they pass."""
        for number, x_BPD in enumerate(batches):
            of_batch_L = self._chosen_L // self._B == number
            self._direction_LPD[of_batch_L] = self._scaling.apply(x_BPD[self._chosen_L[of_batch_L] % self._B])
            yield x_BPD

    def directions(self) -> Float[Tensor, "L P D"]:
        """Once all batches have passed."""
        deviation_LPD = self._direction_LPD - self._scaling.apply(self._scaling.mean_PD)
        noise_LPD = torch.randn(deviation_LPD.shape, generator=self._generator).to(deviation_LPD)
        size_L11 = deviation_LPD.square().mean((1, 2), keepdim=True).sqrt()
        return deviation_LPD + START_NOISE * size_L11 * noise_LPD


def calibration_batches(
    stream: ActivationBatches, progress: Report = lambda what, done, total: None, what: str = ""
) -> Iterator[Float[Tensor, "B P D"]]:
    """The stream's next activations, unscaled, as many as calibration takes."""
    count = calibration_tokens(stream.batch_tokens) // stream.batch_tokens
    for number in range(count):
        yield next(stream).activations
        progress(what, (number + 1) * stream.batch_tokens, count * stream.batch_tokens)

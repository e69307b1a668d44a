"""The scale at which every hookpoint has the mean norm sqrt(D), and so a like weight in squared errors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from xtalk import ranks
from xtalk.activations.stream import ActivationBatches
from xtalk.errors import XtalkError


@dataclass(frozen=True)
class Scaling:
    """One factor per hookpoint, and the mean activation in the model's own scale."""

    factor_P: Float32[Tensor, "P"]
    mean_PD: Float32[Tensor, "P D"]

    def apply(self, x: Float[Tensor, "*B P D"]) -> Float[Tensor, "*B P D"]:
        """From the model's own scale to a mean norm of sqrt(D)."""
        return x * self.factor_P[:, None]

    def to(self, device: torch.device | str) -> "Scaling":
        """The same scaling on another device."""
        return Scaling(self.factor_P.to(device), self.mean_PD.to(device))


def measure_scaling(
    stream: ActivationBatches,
    tokens: int = 65536,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Scaling:
    """Measure the scaling on the next `tokens` tokens of a stream, or all that are left of fewer.

    The stream is left where it was: what is measured is not used up. Every rank (`xtalk.ranks`) measures on
    the same tokens, so that all scale alike. progress(done, total) hears of tokens.
    Raises XtalkError where a hookpoint's activations are all zero, or nothing is left of the stream.
    """
    norm_P, total_PD, count = torch.zeros(()), torch.zeros(()), 0
    with ranks.alone(), stream.rewound():
        for batch in stream:
            x_BPD = batch.activations
            norm_P = norm_P.to(x_BPD.device) + x_BPD.norm(dim=-1).sum(0, dtype=torch.float64)
            total_PD = total_PD.to(x_BPD.device) + x_BPD.sum(0, dtype=torch.float64)
            count += len(x_BPD)
            progress(min(count, tokens), tokens)
            if count >= tokens:
                break
    if not count:
        raise XtalkError("the stream has no tokens left to measure the scaling on; start it anew")
    for name, norm in zip(stream.source.identity.hookpoints, norm_P.tolist(), strict=True):
        if not norm > 0:
            raise XtalkError(f"the activations at {name} are all zero; choose other hookpoints")
    factor_P = total_PD.shape[1] ** 0.5 * count / norm_P
    return Scaling(factor_P.float(), (total_PD / count).float())

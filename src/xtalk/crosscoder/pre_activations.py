"""The pre-activations of a batch, x W_enc + b_enc, and which of them are largest.

All of them are needed only to choose from; values and gradients are those of the chosen ones. So a
`PreActivations` has all of them without a graph, perhaps in bfloat16, and the chosen ones at full precision
and differentiable, from the rows of their latents alone where that pays.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xtalk import ranks
from xtalk.codes import Codes, codes_where
from xtalk.crosscoder import selection_loops

_ROUGH = 2**-6  # of a value: by more, products in bfloat16 hardly ever differ from those in float32

At = Callable[[Int[Tensor, "B K"], Bool[Tensor, "B K"]], Float[Tensor, "B K"]]


@dataclass(frozen=True)
class PreActivations:
    """all_BL: to choose by, without a graph; at: those of latents, 0 in slots that are not used.

    rough: `all_BL` are rounded more than what `at` gives.
    """

    all_BL: Float[Tensor, "B L"]
    at: At
    rough: bool = False

    @staticmethod
    def of(pre_BL: Float[Tensor, "B L"]) -> "PreActivations":
        """Those that are there already, with their graph."""
        return PreActivations(pre_BL.detach(), lambda latents, used: pre_BL.gather(1, latents) * used)

    def codes(self, latents_BK: Int[Tensor, "B K"], used_BK: Bool[Tensor, "B K"]) -> Codes:
        """Those of latents as codes, differentiable; 0 in slots that are not used."""
        return Codes(latents_BK, self.at(latents_BK, used_BK), self.all_BL.shape[1])

    @torch.no_grad()
    def largest(
        self, k: int, *, of_batch: bool
    ) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"], Float[Tensor, "B C"]]:
        """The positive ones among which are the k largest of each token, or the k B largest of the batch.

        Latents, which slots are used, and the values there (B, C), without a graph.
        """
        k = min(k, self.all_BL.shape[1])
        bound_B = _bound_of_batch(self.all_BL, k) if of_batch else _bound_of_tokens(self.all_BL, k)
        zero_L = self.all_BL.new_zeros(self.all_BL.shape[1])
        latents_BC, used_BC = self._reaching(bound_B, zero_L, 2 * k)
        return latents_BC, used_BC, self.at(latents_BC, used_BC)

    @torch.no_grad()
    def reaching(
        self, bound_L: Float[Tensor, "L"], room: int
    ) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"], Float[Tensor, "B C"]]:
        """The positive ones that reach their latent's bound, as `largest` gives them; some `room` a token."""
        latents_BC, used_BC = self._reaching(self.all_BL.new_zeros(len(self.all_BL)), bound_L, room)
        return latents_BC, used_BC, self.at(latents_BC, used_BC)

    def _reaching(
        self, bound_B: Float[Tensor, "B"], bound_L: Float[Tensor, "L"], room: int
    ) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
        least, factor = torch.finfo(self.all_BL.dtype).tiny, 1 - _ROUGH if self.rough else 1.0
        by_token, by_latent = (
            (full(bound) * factor).to(self.all_BL).clamp(min=least) for bound in (bound_B, bound_L)
        )
        if self.all_BL.device.type == "cpu":
            return selection_loops.reaching(self.all_BL, by_token, by_latent, room)
        active_BL = (self.all_BL >= by_token[:, None]) & (self.all_BL >= by_latent)
        codes = codes_where(active_BL, self.all_BL)
        return codes.latents, codes.values > 0


def _bound_of_tokens(pre_BL: Float[Tensor, "B L"], k: int) -> Float[Tensor, "B"]:
    """At most the k-th largest of each token, and near it."""
    if pre_BL.device.type != "cpu":
        return pre_BL.topk(k, dim=1, sorted=False).values.amin(1)
    return full(selection_loops.group_maxima(pre_BL, 2 * k)).topk(k, dim=1).values[:, -1]


def _bound_of_batch(pre_BL: Float[Tensor, "B L"], k: int) -> Float[Tensor, "B"]:
    """At most the k B-th largest of the batch, of all ranks, and near it; the same for each token."""
    numbers, kept = pre_BL.flatten(), k * ranks.total(len(pre_BL))
    if pre_BL.device.type == "cpu":
        numbers = full(selection_loops.group_maxima(pre_BL, 2 * k)).flatten()
    elif ranks.world() > 1:
        numbers = numbers.topk(min(len(numbers), kept)).values
    return largest_but(ranks.gathered(numbers), max(0, kept - 1)).expand(len(pre_BL))


def largest_but(values_N: Float[Tensor, "N"], kept: int) -> Float[Tensor, ""]:
    """The largest of the values that remain when the `kept` largest are taken away; 0 if none remain."""
    rank = len(values_N) - kept  # from below, the smallest being 1
    if rank < 1:
        return values_N.new_zeros(())
    if values_N.device.type == "cpu":  # several times faster than kthvalue; the same value
        return torch.from_numpy(np.partition(values_N.numpy(), rank - 1)[rank - 1 : rank])[0]
    return values_N.kthvalue(rank).values


def full(tensor: Tensor) -> Tensor:
    """At least float32: of half a crosscoder's precision, thresholds would decide otherwise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

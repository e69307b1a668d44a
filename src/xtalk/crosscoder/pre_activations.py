"""The pre-activations of a batch, x W_enc + b_enc, and which of them are largest.

All of them are needed only to choose from; values and gradients are those of the chosen ones. So a
`PreActivations` has all of them without a graph, perhaps in bfloat16, and the chosen ones at full precision
and differentiable, from the rows of their latents alone where that pays.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk import ranks
from xtalk.codes import Codes, codes_where
from xtalk.crosscoder import selection_loops
from xtalk.products import affine_dots, dots

_ROUGH = 2**-6  # of a value: by more, products in bfloat16 hardly ever differ from those in float32


@dataclass(frozen=True)
class ActiveRows:
    """What pre-activations are made of, x_BX @ rows_LX^T + bias_L, so that a few can be made alone."""

    x_BX: Float[Tensor, "B X"]
    rows_LX: Float[Tensor, "L X"]
    bias_L: Float[Tensor, "L"]

    @torch.no_grad()
    def all(self) -> Float[Tensor, "B L"]:
        """All pre-activations, without a graph; under autocast in bfloat16."""
        return F.linear(self.x_BX, self.rows_LX, self.bias_L)

    @torch.no_grad()
    def at(self, latents_BK: Int[Tensor, "B K"], used_BK: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Those of latents, 0 in slots that are not used; without a graph, and never in bfloat16."""
        return dots(self.x_BX, self.rows_LX, latents_BK, used_BK) + self.bias_L[latents_BK] * used_BK

    def differentiable(
        self, values_BK: Float[Tensor, "B K"], latents_BK: Int[Tensor, "B K"], used_BK: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B K"]:
        """Those of latents, whose values are known, with their gradients; 0 in slots that are not used."""
        return affine_dots(values_BK, self.x_BX, self.rows_LX, self.bias_L, latents_BK, used_BK)


@dataclass(frozen=True)
class Slots:
    """Latents of each token (B, C), which slots are used, and the pre-activations there, without a graph."""

    latents_BC: Int[Tensor, "B C"]
    used_BC: Bool[Tensor, "B C"]
    values_BC: Float[Tensor, "B C"]

    def keep(self, kept_BC: Bool[Tensor, "B C"]) -> "Slots":
        """Of the used slots those marked, in order, in as few columns as they need (at least 1)."""
        kept_BC = kept_BC & self.used_BC
        rank_BC = kept_BC.cumsum(1)
        most = max(1, int(rank_BC[:, -1].max())) if len(kept_BC) else 1
        place_BC = torch.where(kept_BC, rank_BC - 1, most)

        def moved(tensor_BC: Tensor) -> Tensor:
            empty = tensor_BC.new_zeros(len(tensor_BC), most + 1)
            return empty.scatter_(1, place_BC, tensor_BC)[:, :most].contiguous()

        used_BK = torch.arange(most, device=kept_BC.device) < rank_BC[:, -1:]
        return Slots(moved(self.latents_BC), used_BK, moved(self.values_BC))


@dataclass(frozen=True)
class PreActivations:
    """all_BL: to choose by, without a graph. Values and gradients of the chosen ones are those of `dense_BL`,
    which are all with their graph, or of `rows`.
    """

    all_BL: Float[Tensor, "B L"]
    dense_BL: Float[Tensor, "B L"] | None = None
    rows: ActiveRows | None = None

    @staticmethod
    def of(pre_BL: Float[Tensor, "B L"]) -> "PreActivations":
        """Those that are there already, with their graph."""
        return PreActivations(pre_BL.detach(), dense_BL=pre_BL)

    @staticmethod
    def from_rows(rows: ActiveRows) -> "PreActivations":
        """Those whose graph is made for the chosen ones alone."""
        return PreActivations(rows.all(), rows=rows)

    @property
    def rough(self) -> bool:
        """Whether `all_BL` are rounded more than values are."""
        return self.rows is not None and self.all_BL.dtype != self.rows.x_BX.dtype

    def codes(self, slots: Slots) -> Codes:
        """The pre-activations of slots as codes, differentiable; 0 in slots that are not used."""
        if self.dense_BL is not None:
            values_BK = self.dense_BL.gather(1, slots.latents_BC) * slots.used_BC
        else:
            assert self.rows is not None
            values_BK = self.rows.differentiable(slots.values_BC, slots.latents_BC, slots.used_BC)
        return Codes(slots.latents_BC, values_BK, self.all_BL.shape[1])

    @torch.no_grad()
    def largest(self, k: int, *, of_batch: bool) -> Slots:
        """The positive ones among which are the k largest of each token, or the k B largest of the batch."""
        bound_B = _bound_of_batch(self.all_BL, k) if of_batch else _bound_of_tokens(self.all_BL, k)
        return self._reaching(bound_B, self.all_BL.new_zeros(self.all_BL.shape[1]), 2 * k)

    @torch.no_grad()
    def reaching(self, bound_L: Float[Tensor, "L"], room: int) -> Slots:
        """The positive ones that reach their latent's bound; room: about how many a token has."""
        return self._reaching(self.all_BL.new_zeros(len(self.all_BL)), bound_L, room)

    def _reaching(self, bound_B: Float[Tensor, "B"], bound_L: Float[Tensor, "L"], room: int) -> Slots:
        least, factor = torch.finfo(self.all_BL.dtype).tiny, 1 - _ROUGH if self.rough else 1.0
        by_token, by_latent = (
            (full(bound) * factor).to(self.all_BL).clamp(min=least) for bound in (bound_B, bound_L)
        )
        if self.all_BL.device.type == "cpu":
            latents_BC, used_BC = selection_loops.reaching(self.all_BL, by_token, by_latent, room)
        else:
            active_BL = (self.all_BL >= by_token[:, None]) & (self.all_BL >= by_latent)
            codes = codes_where(active_BL, self.all_BL)
            latents_BC, used_BC = codes.latents, codes.values > 0
        if self.rough:
            assert self.rows is not None
            return Slots(latents_BC, used_BC, self.rows.at(latents_BC, used_BC))
        return Slots(latents_BC, used_BC, self.all_BL.gather(1, latents_BC) * used_BC)


def _bound_of_tokens(pre_BL: Float[Tensor, "B L"], k: int) -> Float[Tensor, "B"]:
    """At most the k-th largest of each token, and near it; of all numbers where they are no more than k."""
    k = min(k, pre_BL.shape[1])
    if pre_BL.device.type != "cpu":
        return pre_BL.topk(k, dim=1, sorted=False).values.amin(1)
    return full(selection_loops.group_maxima(pre_BL, 2 * k)).topk(k, dim=1).values[:, -1]


def _bound_of_batch(pre_BL: Float[Tensor, "B L"], k: int) -> Float[Tensor, "B"]:
    """At most the k B-th largest of the batch, of all ranks' latents, and near it; for all tokens one."""
    numbers, kept = pre_BL.flatten(), k * len(pre_BL)
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
    return values_N.topk(kept + 1, sorted=False).values.amin()  # CUDA's kthvalue takes one block of threads


def full(tensor: Tensor) -> Tensor:
    """At least float32: of half a crosscoder's precision, thresholds would decide otherwise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

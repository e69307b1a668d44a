"""What ranks that train one crosscoder share out: its latents, and the tokens of a batch.

A rank holds the weights of some latents, with Adam's moments, and encodes all tokens of a batch by them. What
its latents decode to is added to what those of the others do, at the rank that harvested the token; there the
loss is counted. Its gradients go back the same way, so that each rank has those of its own weights, and no
gradient of a weight is exchanged but b_dec's. With one rank, everything is its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk import ranks
from xtalk.codes import Codes
from xtalk.crosscoder.config import LATENT_AXIS
from xtalk.crosscoder.crosscoder import Crosscoder


class _RowsOfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own_nX: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        return ranks.gathered(own_nX, counts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ranks.own_of_sum(grad_outputs[0], ctx.counts), None


class _OwnOfSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part_NX: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        return ranks.own_of_sum(part_NX, counts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ranks.gathered(grad_outputs[0].contiguous(), ctx.counts), None


@dataclass(frozen=True)
class Share:
    """Which of a batch's B tokens, those of all ranks, one after the other, are this rank's.

    counts: how many each rank has, None: one rank has all.
    """

    counts: tuple[int, ...] | None = None

    @property
    def rows(self) -> slice:
        """Where this rank's tokens are."""
        if self.counts is None:
            return slice(None)
        first = sum(self.counts[: ranks.rank()])
        return slice(first, first + self.counts[ranks.rank()])

    def weighted(self, mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """What a mean over this rank's tokens adds to that over all."""
        return mean if self.counts is None else mean * (self.counts[ranks.rank()] / sum(self.counts))

    def summed(self, part_BX: Float[Tensor, "B *X"]) -> Float[Tensor, "b *X"]:
        """At this rank's tokens, what all ranks' latents make together; differentiable."""
        return part_BX if self.counts is None else _OwnOfSum.apply(part_BX, list(self.counts))

    def decoder(self, own_LX: Float[Tensor, "l *X"]) -> Float[Tensor, "L *X"]:
        """The rows of all ranks' latents, given those of this rank's; differentiable."""
        return own_LX if self.counts is None else _RowsOfAll.apply(own_LX, ranks.counts_of(len(own_LX)))

    def codes(self, codes: Codes) -> Codes:
        """At this rank's tokens, the codes in the latents of all ranks; given those in its own."""
        if self.counts is None:
            return codes
        latents, slots = (ranks.counts_of(n) for n in (codes.n_latents, codes.values.shape[1]))
        places_BK = codes.latents + sum(latents[: ranks.rank()])
        latents_bK = ranks.gathered(places_BK.T, slots).T[self.rows]
        values_bK = _RowsOfAll.apply(codes.values.T, slots).T[self.rows]
        used_bK = values_bK != 0
        most = max(1, int(used_bK.sum(1).max())) if len(used_bK) else 1
        places_bk = used_bK.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return Codes(latents_bK.gather(1, places_bk), values_bK.gather(1, places_bk), sum(latents))


ALL_TOKENS = Share()


def of_all_ranks(x_bPD: Float[Tensor, "b P D"]) -> tuple[Float[Tensor, "B P D"], Share]:
    """The activations of a batch's tokens, given those of this rank's; and which those are."""
    if ranks.world() == 1:
        return x_bPD, ALL_TOKENS
    counts = ranks.counts_of(len(x_bPD))
    return ranks.gathered(x_bPD, counts), Share(tuple(counts))


def own_latents(crosscoder: Crosscoder) -> Crosscoder:
    """A crosscoder of this rank's latents alone."""
    if ranks.world() == 1:
        return crosscoder
    own = ranks.part(crosscoder.config.d_sae)
    return _resized(crosscoder, own.stop - own.start, lambda axis, tensor: _along(axis, tensor, own))


def all_latents(crosscoder: Crosscoder) -> Crosscoder:
    """The crosscoder of which each rank has its part."""
    if ranks.world() == 1:
        return crosscoder
    return _resized(crosscoder, ranks.total(crosscoder.config.d_sae), whole)


def whole(axis: int | None, tensor: Tensor) -> Tensor:
    """A tensor, of which each rank has the part of its own latents; None: it has no axis of latents."""
    if axis is None or ranks.world() == 1:
        return tensor
    return ranks.gathered(tensor.movedim(axis, 0).contiguous()).movedim(0, axis)


def own_part(stored: Any, axis: int) -> Tensor:
    """Of a tensor in a file (a slice of safetensors), whose axis counts latents, this rank's part."""
    return stored[(slice(None),) * axis + (ranks.part(stored.get_shape()[axis]),)]


def _along(axis: int | None, tensor: Tensor, rows: slice) -> Tensor:
    return tensor if axis is None else tensor.narrow(axis, rows.start, rows.stop - rows.start)


@torch.no_grad()
def _resized(
    crosscoder: Crosscoder, latents: int, change: Callable[[int | None, Tensor], Tensor]
) -> Crosscoder:
    config = crosscoder.config.model_copy(update={"d_sae": latents})
    resized = Crosscoder(config, crosscoder.provenance).to(crosscoder.W_enc.device, crosscoder.W_enc.dtype)
    for name, parameter in resized.named_parameters():
        parameter.copy_(change(LATENT_AXIS.get(name), crosscoder.get_parameter(name)))
    return resized

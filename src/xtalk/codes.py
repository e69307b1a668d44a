"""Sparse codes: which latents are active at each token, and how strongly."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """The active latents of a batch of tokens.

    latents: (B, K) int64, the active latents of each token, all different; values: (B, K), their activations,
    not negative.
    A token with fewer than K active latents is padded with value 0 (any latent): such a slot contributes 0.

    >>> xtalk.Codes(torch.tensor([[2, 0]]), torch.tensor([[1.5, 0.5]]), n_latents=4).dense()
    tensor([[0.5000, 0.0000, 1.5000, 0.0000]])
    """

    latents: Int[Tensor, "B K"]
    values: Float[Tensor, "B K"]
    n_latents: int

    @staticmethod
    def from_dense(f_BL: Float[Tensor, "B L"]) -> "Codes":
        """The codes of B tokens given densely, of which the positive entries are active.

        Differentiable in `f_BL`.

        >>> xtalk.Codes.from_dense(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])).latents
        tensor([[1, 0],
                [0, 2]])
        """
        return codes_where(f_BL > 0, f_BL)

    def dense(self) -> Float[Tensor, "B L"]:
        """The codes as a dense matrix, differentiable in `values`; made once."""
        return self._dense

    @cached_property
    def _dense(self) -> Tensor:
        dense_BL = self.values.new_zeros(self.values.shape[0], self.n_latents)
        return dense_BL.scatter_add(1, self.latents, self.values)

    def detach(self) -> "Codes":
        """The same codes, cut from the graph."""
        return Codes(self.latents, self.values.detach(), self.n_latents)

    def slice(self, start: int, stop: int) -> "Codes":
        """The codes of tokens start..stop-1."""
        return Codes(self.latents[start:stop], self.values[start:stop], self.n_latents)

    @property
    def used(self) -> Int[Tensor, "B"]:
        """How many slots each token takes: up to the last one that is not padding."""
        slots_K = torch.arange(1, self.values.shape[1] + 1, device=self.values.device)
        return (slots_K * (self.values != 0)).amax(1)


def of_like_width(used_G: Int[Tensor, "G"], elements: int) -> Iterator[tuple[Int[Tensor, "g"], int]]:
    """Groups that use about as many slots, together: their indices, and the most slots k that one uses.

    So that what is made for every two slots need not be made for padding. g k k is at most `elements`, unless
    one group alone has more.
    """
    order_G, start = used_G.argsort(descending=True, stable=True), 0
    while start < len(order_G):
        k = max(1, int(used_G[order_G[start]]))
        end = start + max(1, elements // (k * k))
        yield order_G[start:end], k
        start = end


def codes_where(active_BL: Bool[Tensor, "B L"], dense_BL: Float[Tensor, "B L"]) -> Codes:
    """Gather the entries of `dense_BL` marked in `active_BL` into codes, in order of latent.

    K becomes the largest number of active latents of any token (at least 1). Differentiable in `dense_BL`.
    """
    counts_B = active_BL.sum(1)
    width = max(1, int(counts_B.max())) if len(counts_B) else 1
    rows, latents = active_BL.nonzero(as_tuple=True)
    starts_B = counts_B.cumsum(0) - counts_B
    slots = torch.arange(len(rows), device=rows.device) - starts_B[rows]
    latents_BK = latents.new_zeros(len(counts_B), width)
    latents_BK[rows, slots] = latents
    used_BK = torch.arange(width, device=rows.device) < counts_B[:, None]
    values_BK = dense_BL.gather(1, latents_BK) * used_BK
    return Codes(latents_BK, values_BK, dense_BL.shape[1])

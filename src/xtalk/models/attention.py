"""The weights of one block's attention, by head, in one layout for every model family."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Rotary = Callable[[Int[Tensor, "S"]], tuple[Float[Tensor, "S r"], Float[Tensor, "S r"]]]
"""Cosines and sines of a sequence's positions, for a head's first r coordinates, i paired with i + r/2."""


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Causal attention as plain tensors, H heads of width h; grouped keys and values repeated for each head.

    The score of query t and key s is `scale * <R_t (n_t W_Q + b_Q), R_s (n_s W_K + b_K)>`, R_t the
    rotation of position t, or none. A query sees itself and the keys before it, or only the last `window` of
    them. rotary: takes all positions of a sequence at once, whose number its frequencies may depend on.
    """

    W_Q: Float[Tensor, "H D h"]
    b_Q: Float[Tensor, "H h"]
    W_K: Float[Tensor, "H D h"]
    b_K: Float[Tensor, "H h"]
    W_V: Float[Tensor, "H D h"]
    b_V: Float[Tensor, "H h"]
    W_O: Float[Tensor, "H h D"]
    b_O: Float[Tensor, " D"]
    scale: float
    window: int | None = None
    rotary: Rotary | None = None

    def __call__(self, n_SD: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
        """The attention's output for one sequence of its inputs, the norm's output."""
        value_HSh = torch.einsum("sd,hde->hse", n_SD, self.W_V) + self.b_V[:, None]
        return torch.einsum("hts,hse,hed->td", self.pattern(n_SD), value_HSh, self.W_O) + self.b_O

    def pattern(self, n_SD: Float[Tensor, "S D"]) -> Float[Tensor, "H S S"]:
        """How much each query attends to each key; rows add up to 1."""
        return self.scores(n_SD, n_SD).softmax(dim=-1)

    def scores(self, query_SD: Float[Tensor, "S D"], key_SD: Float[Tensor, "S D"]) -> Float[Tensor, "H S S"]:
        """The scores when queries and keys read these inputs; -inf where a query does not see a key."""
        S = len(query_SD)
        positions = torch.arange(S, device=query_SD.device)
        q_SHh = torch.einsum("sd,hde->she", query_SD, self.W_Q) + self.b_Q
        k_SHh = torch.einsum("sd,hde->she", key_SD, self.W_K) + self.b_K
        q_SHh, k_SHh = self.rotated(q_SHh, positions), self.rotated(k_SHh, positions)
        scores_HSS = self.scale * torch.einsum("the,she->hts", q_SHh, k_SHh)
        behind_SS = positions[:, None] - positions
        seen_SS = (behind_SS >= 0) & (behind_SS < (self.window or S))
        return scores_HSS.masked_fill(~seen_SS, -torch.inf)

    def rotated(
        self, x_SHh: Float[Tensor, "S *K H h"], positions_S: Int[Tensor, "S"]
    ) -> Float[Tensor, "S *K H h"]:
        """Queries or keys turned by their positions; as they are in a model without rotary positions."""
        if self.rotary is None:
            return x_SHh
        shape = (len(positions_S), *[1] * (x_SHh.ndim - 2), -1)
        cos, sin = (table.view(shape) for table in self.rotary(positions_S))
        turned, rest = x_SHh[..., : cos.shape[-1]], x_SHh[..., cos.shape[-1] :]
        first, second = turned.chunk(2, dim=-1)
        return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)

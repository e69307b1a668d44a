"""The weights of a norm, LayerNorm or RMSNorm, in one layout for every model family."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NormWeights:
    """`norm(x) = P x / s(x) * weight + bias`, with the scale `s(x) = sqrt(|P x|^2 / D + eps)`.

    P removes the mean over the D coordinates in a LayerNorm (`centred`), and nothing in an RMSNorm, whose
    bias is zeros.
    """

    weight: Float[Tensor, " D"]
    bias: Float[Tensor, " D"]
    eps: float
    centred: bool

    def __call__(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The norm's output."""
        return self.centre(x) / self.scale(x)[..., None] * self.weight + self.bias

    def centre(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """P x."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
        """s(x)."""
        return torch.sqrt(self.centre(x).square().mean(-1) + self.eps)

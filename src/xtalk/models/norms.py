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

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "NormWeights":
        """The same norm on another device or in another dtype."""
        weight, bias = (tensor.to(device=device, dtype=dtype) for tensor in (self.weight, self.bias))
        return NormWeights(weight, bias, self.eps, self.centred)

    def scale(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
        """s(x)."""
        return torch.sqrt(self.centre(x).square().mean(-1) + self.eps)

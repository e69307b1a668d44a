"""The weights of one MLP, ordinary or gated, in one layout for every model family."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.models.activation_functions import ActivationFunction
from xtalk.models.norms import NormWeights


@dataclass(frozen=True, eq=False)
class MlpWeights:
    """An MLP as plain tensors: `n` (the norm's output, D) to the MLP's output (D), through N neurons.

    Ordinary: `out = phi(n @ W_in + b_in) @ W_out + b_out`.
    Gated: `out = (phi(n @ W_gate + b_gate) * (n @ W_in + b_in)) @ W_out + b_out`.
    Biases that a model lacks are zeros. `W_gate` and `b_gate` are both None or both given. `post_norm` is the
    norm that the output passes through on its way to the residual stream (Gemma 2 and 3, OLMo 2), which is no
    part of the MLP.

    >>> relu = xtalk.activation_function("relu")
    >>> mlp = xtalk.MlpWeights(torch.eye(2), torch.zeros(2), torch.eye(2), torch.ones(2), relu)
    >>> mlp(torch.tensor([[1.0, -1.0]]))
    tensor([[2., 1.]])
    """

    W_in: Float[Tensor, "D N"]
    b_in: Float[Tensor, " N"]
    W_out: Float[Tensor, "N D"]
    b_out: Float[Tensor, " D"]
    activation: ActivationFunction
    W_gate: Float[Tensor, "D N"] | None = None
    b_gate: Float[Tensor, " N"] | None = None
    post_norm: NormWeights | None = None

    def __call__(self, n: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The MLP's output for its input `n`."""
        value = n @ self.W_in + self.b_in
        if self.W_gate is None or self.b_gate is None:
            return self.activation(value) @ self.W_out + self.b_out
        gate = self.activation(n @ self.W_gate + self.b_gate)
        return (gate * value) @ self.W_out + self.b_out

    @property
    def gated(self) -> bool:
        """Whether the neurons' values are multiplied by a gate (SwiGLU, GeGLU)."""
        return self.W_gate is not None

    @property
    def output_norm_N(self) -> Float[Tensor, " N"]:
        """||W_out[k]||_2 of each neuron: how far its activation moves the residual stream.

        With a post-norm that of P W_out[k] * weight; the norm's scale, one factor of all neurons at a token,
        is left out.
        """
        if self.post_norm is None:
            return self.W_out.norm(dim=1)
        return (self.post_norm.centre(self.W_out) * self.post_norm.weight).norm(dim=1)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "MlpWeights":
        """The same weights on another device or in another dtype."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        return MlpWeights(
            W_in=moved(self.W_in),
            b_in=moved(self.b_in),
            W_out=moved(self.W_out),
            b_out=moved(self.b_out),
            activation=self.activation,
            W_gate=None if self.W_gate is None else moved(self.W_gate),
            b_gate=None if self.b_gate is None else moved(self.b_gate),
            post_norm=None if self.post_norm is None else self.post_norm.to(device, dtype),
        )

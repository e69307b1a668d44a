"""The networks of the product-space theorem: a sum of embeddings, one MLP, an unembedding."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xtalk.models.activation_functions import GELU, RELU, ActivationFunction
from xtalk.models.mlp import MlpWeights

Activation = Literal["relu", "gelu"]
_FUNCTIONS: dict[Activation, ActivationFunction] = {"relu": RELU, "gelu": GELU}


@dataclass(frozen=True)
class NetworkSizes:
    """V tokens, C answers, width D, N neurons; `residual`: whether the sum also goes around the MLP."""

    vocabulary: int
    answers: int
    d_model: int = 32
    neurons: int = 64
    activation: Activation = "relu"
    residual: bool = True


class SumNetwork(nn.Module):
    """logits = (MLP(x) + x) unembed + b_unembed, x the sum of the tokens' embeddings.

    `embed (V, D)`, `w_in (D, N)`, `b_in (N)`, `w_out (N, D)`, `b_out (D)`, `unembed (D, C)`, `b_unembed (C)`.
    Without `residual`, x reaches the logits through the MLP alone. Crosscoders read at `hook_names`: the sum
    of embeddings, the MLP's input (the same sum: there is no norm), its output.
    """

    hook_names = ("embedding", "blocks.0.ln2", "blocks.0.mlp_out")

    def __init__(self, sizes: NetworkSizes, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        self.activation = _FUNCTIONS[sizes.activation]
        V, C, D, N = sizes.vocabulary, sizes.answers, sizes.d_model, sizes.neurons

        def normal(rows: int, columns: int, scale: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * scale**-0.5)

        self.embed, self.w_in = normal(V, D, D), normal(D, N, D)
        self.w_out, self.unembed = normal(N, D, N), normal(D, C, D)
        self.b_in, self.b_out = nn.Parameter(torch.zeros(N)), nn.Parameter(torch.zeros(D))
        self.b_unembed = nn.Parameter(torch.zeros(C))

    def mlp_weights(self, block: int = 0) -> MlpWeights:
        """The MLP, which is all of block 0, cut from the graph."""
        parts = (self.w_in, self.b_in, self.w_out, self.b_out)
        w_in, b_in, w_out, b_out = (part.detach() for part in parts)
        return MlpWeights(w_in, b_in, w_out, b_out, self.activation)

    def residual_stream(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B D"]:
        """The MLP's input: the sum of the tokens' embeddings."""
        return nn.functional.embedding_bag(tokens_Bn, self.embed, mode="sum")

    def mlp(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The MLP's output."""
        return self.activation(x_BD @ self.w_in + self.b_in) @ self.w_out + self.b_out

    def activations(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B P D"]:
        """Activations at `hook_names`."""
        return self.activations_at(self.residual_stream(tokens_Bn))

    def activations_at(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B P D"]:
        """Activations at `hook_names` for given sums of embeddings."""
        return torch.stack([x_BD, x_BD, self.mlp(x_BD)], 1)

    def forward(self, tokens_Bn: Int[Tensor, "B n"], ablated: bool = False) -> Float[Tensor, "B C"]:
        """The logits; `ablated`: with the MLP's output replaced by its bias."""
        x_BD = self.residual_stream(tokens_Bn)
        y_BD = self.b_out.expand_as(x_BD) if ablated else self.mlp(x_BD)
        if self.sizes.residual:
            y_BD = y_BD + x_BD
        return y_BD @ self.unembed + self.b_unembed

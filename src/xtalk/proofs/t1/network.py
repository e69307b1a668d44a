"""The network of the finite-data theorem: affine embedding, MLP beside a residual path, unembedding."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xtalk.models.activation_functions import GELU_TANH

Mlp = Literal["whole", "linear", "ablated"]


@dataclass(frozen=True)
class FiniteSizes:
    """I input entries, C classes, width D, N neurons."""

    inputs: int
    classes: int
    d_model: int = 24
    neurons: int = 96


class FiniteNetwork(nn.Module):
    """logits = (x + MLP(x)) unembed + b_unembed with x = z embed + b_embed, for an input z; GELU (tanh).

    `embed (I, D)`, `b_embed (D)`, `w_in (D, N)`, `b_in (N)`, `w_out (N, D)`, `b_out (D)`, `unembed (D, C)`,
    `b_unembed (C)`.
    """

    activation = GELU_TANH

    def __init__(self, sizes: FiniteSizes, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        D, N, C = sizes.d_model, sizes.neurons, sizes.classes

        def normal(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * rows**-0.5)

        self.embed, self.w_in = normal(sizes.inputs, D), normal(D, N)
        self.w_out, self.unembed = normal(N, D), normal(D, C)
        self.b_embed, self.b_in = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(N))
        self.b_out, self.b_unembed = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(C))

    def embedded(self, z_BI: Float[Tensor, "B I"]) -> Float[Tensor, "B D"]:
        """The MLP's input x."""
        return z_BI @ self.embed + self.b_embed

    def mlp(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The MLP's output."""
        return self.activation(x_BD @ self.w_in + self.b_in) @ self.w_out + self.b_out

    def logits(self, x_BD: Float[Tensor, "B D"], mlp_BD: Float[Tensor, "*B D"]) -> Float[Tensor, "B C"]:
        """The logits for an MLP input and whatever stands for the MLP's output."""
        return (x_BD + mlp_BD) @ self.unembed + self.b_unembed

    def slope(self, h_N: Float[Tensor, "*B N"]) -> Float[Tensor, "*B N"]:
        """The activation's derivative, differentiable once more."""
        with torch.enable_grad():
            h_N = h_N if h_N.requires_grad else h_N.detach().requires_grad_()
            return torch.autograd.grad(self.activation(h_N).sum(), h_N, create_graph=True)[0]

    def forward(self, z_BI: Float[Tensor, "B I"]) -> Float[Tensor, "B C"]:
        """The logits."""
        x_BD = self.embedded(z_BI)
        return self.logits(x_BD, self.mlp(x_BD))


@torch.no_grad()
def answers(network: FiniteNetwork, inputs_TI: Float[Tensor, "T I"]) -> Int[Tensor, "T"]:
    """The class of the largest logit."""
    return network(inputs_TI).argmax(1)


@torch.no_grad()
def accuracy(
    network: FiniteNetwork,
    inputs_TI: Float[Tensor, "T I"],
    labels_T: Tensor,
    train_TI: Float[Tensor, "R I"],
    mlp: Mlp = "whole",
) -> float:
    """The fraction of inputs on which the label's logit is the largest.

    mlp: "ablated" puts the mean output over the inputs `train_TI` in the place of the MLP's, "linear" its
    first-order expansion around their mean.
    """
    x_BD, mean_D = network.embedded(inputs_TI), network.embedded(train_TI).mean(0)
    if mlp == "whole":
        out_BD = network.mlp(x_BD)
    elif mlp == "ablated":
        out_BD = network.mlp(network.embedded(train_TI)).mean(0)
    else:
        h_N, moved_BN = mean_D @ network.w_in + network.b_in, (x_BD - mean_D) @ network.w_in
        active_BN = network.activation(h_N) + network.slope(h_N) * moved_BN
        out_BD = active_BN @ network.w_out + network.b_out
    return (network.logits(x_BD, out_BD).argmax(1) == labels_T).double().mean().item()

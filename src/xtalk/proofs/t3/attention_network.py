"""The network of the attention theorem: one layer of one head without positions, the last token asking."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xtalk.proofs.t3.tasks import ProductTask


@dataclass(frozen=True)
class AttentionSizes:
    """V tokens, C answers, width D, head width H."""

    vocabulary: int
    answers: int
    d_model: int = 32
    head: int = 32


class AttentionNetwork(nn.Module):
    """logits = (x_n + sum_p a_p x_p w_value w_out + b_out) unembed + b_unembed.

    a = softmax over positions p of (x_n w_query) . (x_p w_key); x_n is the last token's embedding.
    `embed (V, D)`, `w_query`, `w_key`, `w_value (D, H)`, `w_out (H, D)`, `b_out (D)`, `unembed (D, C)`,
    `b_unembed (C)`; the scores' usual 1 / sqrt(H) is part of the weights.
    """

    hook_names = ("embedding", "blocks.0.attn_out")

    def __init__(self, sizes: AttentionSizes, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        V, C, D, H = sizes.vocabulary, sizes.answers, sizes.d_model, sizes.head

        def normal(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * scale)

        self.embed = normal(V, D, D**-0.5)
        self.w_query, self.w_key = normal(D, H, D**-0.5), normal(D, H, D**-0.5)
        self.w_value, self.w_out = normal(D, H, D**-0.5), normal(H, D, H**-0.5)
        self.unembed = normal(D, C, D**-0.5)
        self.b_out, self.b_unembed = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(C))

    def attention(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B D"]:
        """The layer's output at the last token."""
        x_BnD = self.embed[tokens_Bn]
        score_Bn = torch.einsum("bh,bnh->bn", x_BnD[:, -1] @ self.w_query, x_BnD @ self.w_key)
        mixed_BD = torch.einsum("bn,bnd->bd", score_Bn.softmax(1), x_BnD)
        return mixed_BD @ self.w_value @ self.w_out + self.b_out

    def activations(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B P D"]:
        """Activations at `hook_names`, at the last token."""
        return torch.stack([self.embed[tokens_Bn[:, -1]], self.attention(tokens_Bn)], 1)

    def forward(self, tokens_Bn: Int[Tensor, "B n"], ablated: bool = False) -> Float[Tensor, "B C"]:
        """The logits; `ablated`: with the layer's output replaced by its bias."""
        x_BD = self.embed[tokens_Bn[:, -1]]
        y_BD = self.b_out.expand_as(x_BD) if ablated else self.attention(tokens_Bn)
        return (x_BD + y_BD) @ self.unembed + self.b_unembed


def attention_spec(task: ProductTask, weights_sha256: str) -> dict[str, Any]:
    """The specification that a checker is given; ties lose."""
    asked = {
        "name": task.name,
        "n": task.n,
        "classes": list(task.classes),
        "answers": task.answers,
        "residual": True,
        "ties": "lose",
    }
    return {"format": "xtalk.spec/1", "theorem": "T3 attention", "weights": weights_sha256, "task": asked}

"""The network of theorem T3 attention, and all that proving needs of it.

One layer of one head without positions, the last token asking.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.proofs.certificates import Certificate, certify, container
from xtalk.proofs.t3.brute_force import ENDS, multisets, pair_sums
from xtalk.proofs.t3.columns import Columns, Dictionary, dictionary_of
from xtalk.proofs.t3.detail import Alike, attention_advice
from xtalk.proofs.t3.tasks import ProductTask
from xtalk.training.mlps import HasMlps


@dataclass(frozen=True)
class AttentionSizes:
    """V tokens, C answers, width D, head width H."""

    vocabulary: int
    answers: int
    d_model: int = 32
    head: int = 32


class Head(nn.Module):
    """logits = (x_n + sum_p a_p x_p w_value w_out + b_out) unembed + b_unembed.

    a = softmax over positions p of `scale` (x_n w_query) . (x_p w_key), x_p being what `inputs` makes of the
    token at p. `embed (V, D)`, `w_query`, `w_key`, `w_value (D, H)`, `w_out (H, D)`, `b_out (D)`,
    `unembed (D, C)`, `b_unembed (C)`.
    """

    scale = 1.0
    ordered = True

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

    def inputs(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B n D"]:
        """The rows x_p."""
        return self.embed[tokens_Bn]

    def attention(self, x_BnD: Float[Tensor, "B n D"]) -> Float[Tensor, "B D"]:
        """The layer's output at the last token."""
        query_BH = x_BnD[:, -1] @ self.w_query * self.scale
        score_Bn = torch.einsum("bh,bnh->bn", query_BH, x_BnD @ self.w_key)
        mixed_BD = torch.einsum("bn,bnd->bd", score_Bn.softmax(1), x_BnD)
        return mixed_BD @ self.w_value @ self.w_out + self.b_out

    def forward(self, tokens_Bn: Int[Tensor, "B n"], ablated: bool = False) -> Float[Tensor, "B C"]:
        """The logits; `ablated`: with the layer's output replaced by its bias."""
        x_BnD = self.inputs(tokens_Bn)
        y_BD = self.b_out if ablated else self.attention(x_BnD)
        return (x_BnD[:, -1] + y_BD) @ self.unembed + self.b_unembed

    def per_input_multiply_adds(self, task: ProductTask) -> int:
        """What one input costs, products of weights shared."""
        return task.n * task.answers


class AttentionNetwork(Head):
    """A head without positions; the scores' usual 1 / sqrt(H) is part of the weights."""

    theorem = "T3 attention"
    hook_names = ("embedding", "blocks.0.attn_out")

    @property
    def d_model(self) -> int:
        """The width D."""
        return self.sizes.d_model

    @property
    def penalised(self) -> dict[str, HasMlps]:
        """There is no MLP for penalties to reach."""
        return {}

    def activations(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B P D"]:
        """Activations at `hook_names`, at the last token."""
        x_BnD = self.inputs(tokens_Bn)
        return torch.stack([x_BnD[:, -1], self.attention(x_BnD)], 1)

    @torch.no_grad()
    def dictionary(self, crosscoder: Crosscoder, task: ProductTask) -> Dictionary:
        """The feature that is strongest where a token attends to itself alone: on embedding and value.

        Strength is the pre-activation times the norm of the feature's direction in the embedding.
        """
        alone_VPD = self.activations(torch.arange(task.vocabulary)[:, None])
        strength_VL = crosscoder.pre_activations(alone_VPD) * crosscoder.W_dec[:, 0].norm(dim=1)
        features = strength_VL.argmax(1).tolist()
        return dictionary_of(features, list(zip(task.classes, features, strict=True)))

    def certify(self, task: ProductTask, columns: Columns, alike: Alike = "tokens") -> Certificate:
        """The certificate that claims the most, with every column an anchor and one block for the rest.

        Errors: XtalkError where the checker refuses the certificate.
        """
        weights = container(self.state_dict())
        spec = attention_spec(task, hashlib.sha256(weights).hexdigest())
        return certify(spec, weights, attention_advice(columns, alike), task.total)

    def brute_force_multiply_adds(self, task: ProductTask) -> int:
        """Every input once, up to the order of the first n - 1 tokens, products of weights shared."""
        return distinct_inputs(task) * self.per_input_multiply_adds(task)

    def runner(self, task: ProductTask) -> "AttentionRunner":
        """The network ready to go through every input."""
        return AttentionRunner(self, task)


def distinct_inputs(task: ProductTask) -> int:
    """The inputs that the network can tell apart: by the last token, and the others up to order."""
    return task.vocabulary * comb(task.vocabulary + task.n - 2, task.n - 1)


class AttentionRunner:
    """An attention network; for each asking token a table of what every token adds to the logits.

    The softmax's denominator is positive and common to all logits, so the largest is found without it.
    """

    @torch.no_grad()
    def __init__(self, network: "AttentionNetwork", task: ProductTask) -> None:
        self.task, self.distinct = task, distinct_inputs(task)
        score_VV = (network.embed @ network.w_query) @ (network.embed @ network.w_key).T
        self._weight_VV = (score_VV - score_VV.amax(1, keepdim=True)).exp()
        self._moved_VC = network.embed @ network.w_value @ network.w_out @ network.unembed
        self._resting_VC = (network.embed + network.b_out) @ network.unembed + network.b_unembed
        self._classes = torch.tensor(task.classes)

    def run(self, size: int) -> Iterator[tuple[int, int]]:
        """As `Runner.run`."""
        for asking in range(self.task.vocabulary):
            for piece in multisets(self.task.vocabulary, self.task.n - 1, size):
                yield self._right(asking, *piece)

    def sampled(self, size: int, generator: torch.Generator) -> int:
        """As `Runner.sampled`."""
        ends = self.task.sample(ENDS, generator)[:, :1]
        begin_Pa = self.task.sample(size // ENDS, generator)[:, 2:]
        return self._right(int(ends[0]), begin_Pa, ends)[1]

    @torch.no_grad()
    def _right(
        self, asking: int, begin_Pa: Int[Tensor, "P a"], end_Qb: Int[Tensor, "Q b"]
    ) -> tuple[int, int]:
        table_VC = self._weight_VV[asking][:, None] * (self._moved_VC + self._resting_VC[asking])
        logits_PQC = pair_sums(table_VC, begin_Pa, end_Qb).add_(table_VC[asking])
        own, ends = self._classes[asking], self._classes[end_Qb][:, 0]
        join = torch.maximum if self.task.name == "max" else torch.minimum
        answers = join(own, ends).expand(len(begin_Pa), -1)
        for place in range(begin_Pa.shape[1]):
            answers = join(answers, self._classes[begin_Pa[:, place]][:, None])
        return int((logits_PQC.argmax(2) == answers).sum()), answers.numel()


def attention_spec(task: ProductTask, weights_sha256: str) -> dict[str, Any]:
    """The specification that a checker is given, of the deployed float32 network; ties lose."""
    asked = {
        "name": task.name,
        "n": task.n,
        "classes": list(task.classes),
        "answers": task.answers,
        "residual": True,
        "ties": "lose",
        "arithmetic": "float32",
    }
    return {"format": "xtalk.spec/1", "theorem": "T3 attention", "weights": weights_sha256, "task": asked}

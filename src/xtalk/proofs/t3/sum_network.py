"""The network of theorem T3, and all that proving needs of it.

A sum of embeddings, one MLP, an unembedding.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.models.activation_functions import GELU, RELU, ActivationFunction
from xtalk.models.mlp import MlpWeights
from xtalk.proofs.certificates import Certificate, certify, container
from xtalk.proofs.t3.brute_force import ENDS, pair_sums, pieces
from xtalk.proofs.t3.columns import Columns, Dictionary, dictionary_of
from xtalk.proofs.t3.detail import Detail, default_detail, sum_advice
from xtalk.proofs.t3.tasks import ProductTask

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

    theorem = "T3"
    ordered = False
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

    @property
    def d_model(self) -> int:
        """The width D."""
        return self.sizes.d_model

    @property
    def penalised(self) -> "SumNetwork":
        """Penalties reach the MLP."""
        return self

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

    @torch.no_grad()
    def dictionary(self, crosscoder: Crosscoder, task: ProductTask) -> Dictionary:
        """The feature that each token brings in most strongly, when it stands among average others.

        Strength is the pre-activation times the norm of the feature's direction at the MLP's input.
        """
        groups = _groups(task)
        mean_GD = torch.stack([self.embed[group].mean(0) for group in groups])
        positions = 1 if len(groups) > 1 else task.n
        average_D = mean_GD.sum(0) * positions
        x_VD = self.embed + average_D
        for group, mean_D in zip(groups, mean_GD, strict=True):
            x_VD[group] -= mean_D
        norm_L = crosscoder.W_dec[:, crosscoder.hook_index("blocks.0.ln2")].norm(dim=1)
        strength_VL = crosscoder.pre_activations(self.activations_at(x_VD)) * norm_L
        key_of_token = {token: key for key, group in enumerate(groups) for token in group}
        queries = (
            task.n - 1 if task.name == "lookup" else 0
        )  # each asks for a key of its own, and stands alone
        features = strength_VL.argmax(1).tolist()
        kinds = [
            (task.classes[token], key_of_token[token], token if token < queries else feature)
            for token, feature in enumerate(features)
        ]
        return dictionary_of(features, kinds)

    def certify(self, task: ProductTask, columns: Columns, detail: Detail | None = None) -> Certificate:
        """The certificate of theorem T3 that claims the most; detail: by default, `default_detail`.

        Modular addition has no anchors: it needs as many blocks as columns. Errors: XtalkError where the
        checker refuses the certificate.
        """
        advice = sum_advice(columns, detail or default_detail(task, columns))
        return certify(*self._question(task, self.theorem), advice, task.total)

    def certify_by_brute_force(self, task: ProductTask) -> Certificate:
        """The certificate that goes through every input: the longest and the tightest."""
        return certify(*self._question(task, "brute_force"), {}, task.total)

    def _question(self, task: ProductTask, theorem: str) -> tuple[dict[str, Any], bytes]:
        """What a verifier asks, and the weights it is asked of."""
        weights = container(self.state_dict())
        sizes, digest = self.sizes, hashlib.sha256(weights).hexdigest()
        return task.spec(theorem, sizes.activation, sizes.residual, digest), weights

    def brute_force_multiply_adds(self, task: ProductTask) -> int:
        """What the checker's `brute_force` costs: N (n + C) a sequence, up to order where none matters."""
        return task.distinct * self.per_input_multiply_adds(task)

    def per_input_multiply_adds(self, task: ProductTask) -> int:
        """What one input costs, all products of weights shared."""
        return self.sizes.neurons * (task.n + task.answers)

    def runner(self, task: ProductTask) -> "SumRunner":
        """The network ready to go through every input."""
        return SumRunner(self, task)


class SumRunner:
    """A sum network with all products of weights multiplied out."""

    @torch.no_grad()
    def __init__(self, network: "SumNetwork", task: ProductTask) -> None:
        self.task, self.distinct, self._phi = task, task.distinct, network.activation
        self._hidden_VN = network.embed @ network.w_in
        self._out_NC = network.w_out @ network.unembed
        self._direct_VC = network.embed @ network.unembed if network.sizes.residual else None
        self._b_in, self._b_logit = network.b_in, network.b_out @ network.unembed + network.b_unembed
        self._classes = torch.tensor(task.classes)

    def run(self, size: int) -> Iterator[tuple[int, int]]:
        """As `Runner.run`."""
        yield from (self._right(*piece) for piece in pieces(self.task, size))

    def sampled(self, size: int, generator: torch.Generator) -> int:
        """As `Runner.sampled`."""
        ends = self.task.sample(ENDS, generator)[:, -1:]
        return self._right(self.task.sample(size // ENDS, generator)[:, :-1], ends)[1]

    @torch.no_grad()
    def _right(self, begin_Pa: Int[Tensor, "P a"], end_Qb: Int[Tensor, "Q b"]) -> tuple[int, int]:
        h_PQN = pair_sums(self._hidden_VN, begin_Pa, end_Qb).add_(self._b_in)
        logits = torch.addmm(self._b_logit, self._phi(h_PQN).flatten(0, 1), self._out_NC)
        if self._direct_VC is not None:
            logits += pair_sums(self._direct_VC, begin_Pa, end_Qb).flatten(0, 1)
        answers = self._answers(begin_Pa, end_Qb)
        return int((logits.argmax(1) == answers.flatten()).sum()), answers.numel()

    def _answers(self, begin_Pa: Int[Tensor, "P a"], end_Qb: Int[Tensor, "Q b"]) -> Int[Tensor, "P Q"]:
        before, after = self._classes[begin_Pa], self._classes[end_Qb]
        if self.task.name == "max":
            return torch.maximum(before.amax(1)[:, None], after.amax(1))
        if self.task.name == "min":
            return torch.minimum(before.amin(1)[:, None], after.amin(1))
        if self.task.name == "modular_addition":
            return (before.sum(1)[:, None] + after.sum(1)) % self.task.answers
        if self.task.name == "majority":  # the beginning is of the majority's class
            return before[:, :1].expand(-1, len(after))
        values = torch.cat([before[:, None].expand(-1, len(after), -1), after.expand(len(before), -1, -1)], 2)
        return values.gather(2, 1 + begin_Pa[:, None, :1].expand(-1, len(after), 1))[..., 0]


def _groups(task: ProductTask) -> list[range]:
    """The tokens that may fill each kind of position."""
    if task.name != "lookup":
        return [range(task.vocabulary)]
    keys, values = task.n - 1, task.values_per_key
    return [range(keys), *(range(keys + k * values, keys + (k + 1) * values) for k in range(keys))]

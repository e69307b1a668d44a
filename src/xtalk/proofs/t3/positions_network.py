"""The network of theorem T3 positions, that of Gross et al. 2024 (arXiv 2406.11779), and its certificates."""

import hashlib
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor, nn

from xtalk.proofs.certificates import Certificate, certify, container
from xtalk.proofs.t3.attention_network import AttentionSizes, Head
from xtalk.proofs.t3.brute_force import ENDS, pair_sums
from xtalk.proofs.t3.tasks import ProductTask


class PositionsNetwork(Head):
    """A head with learned positions (`position (n, D)`), and biases that stay 0."""

    def __init__(self, sizes: AttentionSizes, n: int, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        self.position = nn.Parameter(torch.randn(n, sizes.d_model, generator=generator))
        with torch.no_grad():  # as TransformerLens starts weights
            self.position *= sizes.d_model**-0.5
            for weight in self.parameters():
                weight *= 0.8
        self.scale = sizes.head**-0.5
        for bias in (self.b_out, self.b_unembed):
            bias.requires_grad_(False)

    def inputs(self, tokens_Bn: Int[Tensor, "B n"]) -> Tensor:
        """The rows x_p."""
        return self.embed[tokens_Bn] + self.position

    @torch.no_grad()
    def fold_scale(self) -> None:
        """Make the scores' 1 / sqrt(H) a part of the weights, where the theorem has it."""
        self.w_query *= self.scale
        self.scale = 1.0

    def certify(self, task: ProductTask) -> Certificate:
        """The certificate that claims the most. Errors: XtalkError where the checker refuses it."""
        weights = container(self.state_dict())
        asked = {
            "name": task.name,
            "n": task.n,
            "classes": list(task.classes),
            "answers": task.answers,
            "ties": "lose",
            "arithmetic": "float32",
        }
        spec = {
            "format": "xtalk.spec/1",
            "theorem": "T3 positions",
            "weights": hashlib.sha256(weights).hexdigest(),
            "task": asked,
        }
        return certify(spec, weights, {}, task.total)


class PositionsRunner:
    """A head with positions; for each asking token and position a table of what tokens add to the logits.

    The softmax's denominator is positive and common to all logits, so the largest is found without it.
    """

    @torch.no_grad()
    def __init__(self, network: PositionsNetwork, task: ProductTask) -> None:
        self.task, self.distinct = task, task.total
        x_nVD = network.embed + network.position[:, None]
        score_VnV = torch.einsum("qh,nvh->qnv", x_nVD[-1] @ network.w_query, x_nVD @ network.w_key)
        self._weight_VnV = (score_VnV - score_VnV.amax((1, 2), keepdim=True)).exp()
        self._moved_nVC = x_nVD @ network.w_value @ network.w_out @ network.unembed
        self._resting_VC = (x_nVD[-1] + network.b_out) @ network.unembed + network.b_unembed
        self._classes = torch.tensor(task.classes)

    def run(self, size: int) -> Iterator[tuple[int, int]]:
        """As `Runner.run`."""
        every, n = torch.arange(self.task.vocabulary), self.task.n
        begin = torch.cartesian_prod(*[every] * (n - 2)).view(-1, n - 2) if n > 2 else every[:1, None][:, :0]
        for asking in range(self.task.vocabulary):
            for piece in begin.split(max(1, size // self.task.vocabulary)):
                yield self._right(asking, piece, every)

    def sampled(self, size: int, generator: torch.Generator) -> int:
        """As `Runner.sampled`."""
        ends = self.task.sample(ENDS, generator)[:, -2:]
        begin_Pa = self.task.sample(size // ENDS, generator)[:, 2:]
        return self._right(int(ends[0, 1]), begin_Pa, ends[:, 0])[1]

    @torch.no_grad()
    def _right(self, asking: int, begin_Pa: Int[Tensor, "P a"], ends_Q: Int[Tensor, "Q"]) -> tuple[int, int]:
        table_nVC = self._weight_VnV[asking][..., None] * (self._moved_nVC + self._resting_VC[asking])
        V, places = self.task.vocabulary, torch.arange(begin_Pa.shape[1])
        logits_PQC = pair_sums(
            table_nVC.flatten(0, 1), begin_Pa + V * places, ends_Q[:, None] + V * len(places)
        )
        logits_PQC += table_nVC[-1, asking]
        join = torch.maximum if self.task.name == "max" else torch.minimum
        answers = join(self._classes[asking], self._classes[ends_Q]).expand(len(begin_Pa), -1)
        for place in places:
            answers = join(answers, self._classes[begin_Pa[:, place]][:, None])
        return int((logits_PQC.argmax(2) == answers).sum()), answers.numel()

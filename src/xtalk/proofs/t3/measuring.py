"""The true accuracy of a small network: exact in a small space, with an interval in a large one."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import factorial

import torch
from jaxtyping import Float, Int
from scipy.stats import beta
from torch import Tensor

from xtalk.proofs.row import Figure
from xtalk.proofs.t3.network import Answering
from xtalk.proofs.t3.tasks import ProductTask

SAMPLES = 100_000
_BATCH = 8192
_EXHAUSTIVE = 1_000_000  # sequences up to order


@dataclass(frozen=True)
class Measured:
    """`right` of `inputs` inputs: all there are (`exhaustive`), or a uniform sample of them."""

    right: int
    inputs: int
    exhaustive: bool

    @property
    def value(self) -> float:
        """The fraction that is right."""
        return self.right / self.inputs

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's 95 % interval; both ends the value itself where all inputs were measured."""
        if self.exhaustive:
            return self.value, self.value
        low = beta.ppf(0.025, self.right, self.inputs - self.right + 1) if self.right else 0.0
        wrong = self.inputs - self.right
        return float(low), float(beta.ppf(0.975, self.right + 1, wrong)) if wrong else 1.0


def figure(measured: Measured) -> Figure:
    """The figure of a certificate's row."""
    return Figure(
        value=measured.value,
        ci95=measured.interval,
        right=measured.right,
        inputs=measured.inputs,
        exhaustive=measured.exhaustive,
    )


@torch.no_grad()
def measure(
    network: Answering, task: ProductTask, samples: int, seed: int, ablated: bool = False
) -> Measured:
    """How often the network is right, ties counting as wrong; `ablated`: with its layer's output replaced.

    On every sequence, if there are few and order matters neither to the task nor to the network; else on
    `samples` random ones.
    """
    unordered = task.name in ("max", "min", "modular_addition") and not network.ordered
    if unordered and task.distinct <= _EXHAUSTIVE:
        right = sum(
            int((_right(network, task, tokens_Bn, ablated) * orders_B).sum())
            for tokens_Bn, orders_B in _multisets(task.vocabulary, task.n)
        )
        return Measured(right, task.total, True)
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for first in range(0, samples, _BATCH):
        tokens_Bn = task.sample(min(_BATCH, samples - first), generator)
        right += int(_right(network, task, tokens_Bn, ablated).sum())
    return Measured(right, samples, False)


def constant_answer(task: ProductTask, samples: int, seed: int) -> float:
    """How often the best constant answer is right, on random sequences."""
    tokens_Bn = task.sample(samples, torch.Generator().manual_seed(seed))
    return float(task.answer(tokens_Bn).bincount().max()) / samples


def _right(
    network: Answering, task: ProductTask, tokens_Bn: Int[Tensor, "B n"], ablated: bool
) -> Int[Tensor, "B"]:
    logits_BC: Float[Tensor, "B C"] = network(tokens_Bn, ablated=ablated)
    answer_B1 = task.answer(tokens_Bn)[:, None]
    ahead_B = logits_BC.gather(1, answer_B1) > logits_BC.scatter(1, answer_B1, -torch.inf)
    return ahead_B.all(1).long()


def _multisets(vocabulary: int, n: int) -> Iterator[tuple[Int[Tensor, "B n"], Int[Tensor, "B"]]]:
    """All multisets of n tokens, sorted, in batches, each with the number of its orders."""
    rows_Bn = torch.combinations(torch.arange(vocabulary), n, with_replacement=True)
    for tokens_Bn in rows_Bn.split(_BATCH):
        repeats_B, run_B = torch.ones(len(tokens_Bn), dtype=torch.long), torch.ones(len(tokens_Bn))
        for place in range(1, n):
            same_B = tokens_Bn[:, place] == tokens_Bn[:, place - 1]
            run_B = torch.where(same_B, run_B + 1, 1.0)
            repeats_B *= run_B.long()  # 1 * 2 * ... * k over a run of k: its factorial
        yield tokens_Bn, factorial(n) // repeats_B

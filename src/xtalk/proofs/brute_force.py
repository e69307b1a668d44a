"""Brute force in seconds: a network run on every input in float32, vectorised.

It proves nothing about rounding; it is what a check competes with in time. Seconds are those of one core, as
a check uses one: CPU time, which other work on the machine hardly changes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import comb
from time import process_time

import torch
from jaxtyping import Int
from torch import Tensor

from xtalk.proofs.t3.attention_network import AttentionNetwork
from xtalk.proofs.t3.sum_network import SumNetwork
from xtalk.proofs.t3.tasks import ProductTask

BUDGET = 0.2  # seconds; more are estimated
_SIZES = (1 << 12, 1 << 14, 1 << 16)  # inputs at a time, of which the fastest is taken
_ENDS = 64  # of a sampled piece, which share the sums of its beginnings

Clock = Callable[[], float]
Piece = tuple[Tensor, Tensor]
"""Beginnings (P, a) and ends (Q, b) of sequences: every pair of them is an input."""


@dataclass(frozen=True)
class Timing:
    """The seconds of all inputs; `estimated`: from the rate on a sample of them, times their number."""

    seconds: float
    estimated: bool


def against_brute_force(macs: int, brute_force_macs: int, check_seconds: float, brute_force: Timing) -> str:
    """Both comparisons in words: length is counted in multiply-adds, speed in seconds."""
    fewer, faster = brute_force_macs / macs, brute_force.seconds / check_seconds
    link = "and" if (fewer < 1) == (faster < 1) else "but"
    estimated = "an estimated " if brute_force.estimated else ""
    return (
        f"{_times(fewer, 'shorter', 'longer')} in multiply-adds {link} {_times(faster, 'faster', 'slower')} "
        f"in seconds of one core ({check_seconds:.2g} against {estimated}{brute_force.seconds:.2g})"
    )


def _times(ratio: float, more: str, less: str) -> str:
    size = max(ratio, 1 / ratio)
    return f"{f'{size:,.0f}' if size >= 100 else f'{size:.2g}'} times {more if ratio >= 1 else less}"


def least_seconds(work: Callable[[], object], budget: float = BUDGET, clock: Clock = process_time) -> Timing:
    """The least time that the work takes, in as many runs as the budget allows, two at least."""
    times: list[float] = []
    with _one_core():
        while len(times) < 2 or sum(times) < budget:
            began = clock()
            work()
            times.append(clock() - began)
    return Timing(min(times), estimated=False)


@contextmanager
def _one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def time_sequences(
    network: SumNetwork | AttentionNetwork,
    task: ProductTask,
    budget: float = BUDGET,
    clock: Clock = process_time,
) -> Timing:
    """How long going through every sequence takes, up to the order of tokens where it does not matter.

    It is measured where it takes no longer than the budget.
    """
    is_sum = isinstance(network, SumNetwork)
    runner = SumRunner(network, task) if is_sum else AttentionRunner(network, task)
    generator = torch.Generator().manual_seed(0)

    def rate(size: int) -> float:
        runner.sampled(size, generator)  # the first run is slower
        began, counted = clock(), 0
        while clock() - began < budget / 8:
            counted += runner.sampled(size, generator)
        return counted / (clock() - began)

    with _one_core():
        rates = {size: rate(size) for size in _SIZES}
    best = max(rates, key=rates.__getitem__)
    estimate = runner.distinct / rates[best]
    if estimate > budget:
        return Timing(estimate, estimated=True)
    return least_seconds(lambda: sum(inputs for _, inputs in runner.run(best)), clock=clock)


class SumRunner:
    """A sum network with all products of weights multiplied out."""

    @torch.no_grad()
    def __init__(self, network: SumNetwork, task: ProductTask) -> None:
        self.task, self.distinct, self._phi = task, task.distinct, network.activation
        self._hidden_VN = network.embed @ network.w_in
        self._out_NC = network.w_out @ network.unembed
        self._direct_VC = network.embed @ network.unembed if network.sizes.residual else None
        self._b_in, self._b_logit = network.b_in, network.b_out @ network.unembed + network.b_unembed
        self._classes = torch.tensor(task.classes)

    def run(self, size: int) -> Iterator[tuple[int, int]]:
        """For each piece of the space, how many inputs are answered right, and how many there are."""
        yield from (self._right(*piece) for piece in pieces(self.task, size))

    def sampled(self, size: int, generator: torch.Generator) -> int:
        """Run on random inputs; returns how many."""
        ends = self.task.sample(_ENDS, generator)[:, -1:]
        return self._right(self.task.sample(size // _ENDS, generator)[:, :-1], ends)[1]

    @torch.no_grad()
    def _right(self, begin_Pa: Int[Tensor, "P a"], end_Qb: Int[Tensor, "Q b"]) -> tuple[int, int]:
        h_PQN = _pair_sums(self._hidden_VN, begin_Pa, end_Qb).add_(self._b_in)
        logits = torch.addmm(self._b_logit, self._phi(h_PQN).flatten(0, 1), self._out_NC)
        if self._direct_VC is not None:
            logits += _pair_sums(self._direct_VC, begin_Pa, end_Qb).flatten(0, 1)
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


class AttentionRunner:
    """An attention network; for each asking token a table of what every token adds to the logits.

    The softmax's denominator is positive and common to all logits, so the largest is found without it.
    """

    @torch.no_grad()
    def __init__(self, network: AttentionNetwork, task: ProductTask) -> None:
        self.task, V, n = task, task.vocabulary, task.n
        self.distinct = V * comb(V + n - 2, n - 1)
        score_VV = (network.embed @ network.w_query) @ (network.embed @ network.w_key).T
        self._weight_VV = (score_VV - score_VV.amax(1, keepdim=True)).exp()
        self._moved_VC = network.embed @ network.w_value @ network.w_out @ network.unembed
        self._resting_VC = (network.embed + network.b_out) @ network.unembed + network.b_unembed
        self._classes = torch.tensor(task.classes)

    def run(self, size: int) -> Iterator[tuple[int, int]]:
        """As `SumRunner.run`."""
        for asking in range(self.task.vocabulary):
            for piece in multisets(self.task.vocabulary, self.task.n - 1, size):
                yield self._right(asking, *piece)

    def sampled(self, size: int, generator: torch.Generator) -> int:
        """As `SumRunner.sampled`."""
        ends = self.task.sample(_ENDS, generator)[:, :1]
        begin_Pa = self.task.sample(size // _ENDS, generator)[:, 2:]
        return self._right(int(ends[0]), begin_Pa, ends)[1]

    @torch.no_grad()
    def _right(
        self, asking: int, begin_Pa: Int[Tensor, "P a"], end_Qb: Int[Tensor, "Q b"]
    ) -> tuple[int, int]:
        table_VC = self._weight_VV[asking][:, None] * (self._moved_VC + self._resting_VC[asking])
        logits_PQC = _pair_sums(table_VC, begin_Pa, end_Qb).add_(table_VC[asking])
        own, ends = self._classes[asking], self._classes[end_Qb][:, 0]
        join = torch.maximum if self.task.name == "max" else torch.minimum
        answers = join(own, ends).expand(len(begin_Pa), -1)
        for place in range(begin_Pa.shape[1]):
            answers = join(answers, self._classes[begin_Pa[:, place]][:, None])
        return int((logits_PQC.argmax(2) == answers).sum()), answers.numel()


def _pair_sums(table: Tensor, begin_Pa: Tensor, end_Qb: Tensor) -> Tensor:
    """The sum of the rows of all of a pair's tokens, `(P, Q, columns)`."""
    return table[begin_Pa].sum(1)[:, None] + table[end_Qb].sum(1)


def pieces(task: ProductTask, size: int) -> Iterator[Piece]:
    """Every input once, up to order where none matters, in pieces of about that many."""
    if task.name == "lookup":
        keys = task.n - 1
        groups = [keys + key * task.values_per_key + torch.arange(task.values_per_key) for key in range(keys)]
        begin = torch.cartesian_prod(torch.arange(keys), *groups[:-1]).view(-1, keys)
        yield from _split(begin, groups[-1][:, None], size)
    elif task.name == "majority":
        classes = torch.tensor(task.classes)
        for answer in range(task.answers):
            own, others = (classes == answer).nonzero()[:, 0], (classes != answer).nonzero()[:, 0]
            for copies in range(task.n // 2 + 1, task.n + 1):
                yield from _split(_chosen(own, copies), _chosen(others, task.n - copies), size)
    else:
        yield from multisets(task.vocabulary, task.n, size)


def multisets(vocabulary: int, n: int, size: int) -> Iterator[Piece]:
    """Every multiset of n tokens once: beginnings that end in one token, and the tokens from it on."""
    every = torch.arange(vocabulary)
    if n == 1:
        yield torch.empty(1, 0, dtype=torch.long), every[:, None]
        return
    for last in range(vocabulary):
        begin = _chosen(every[: last + 1], n - 2)
        begin = torch.cat([begin, torch.full((len(begin), 1), last)], 1)
        yield from _split(begin, every[last:, None], size)


def _chosen(tokens: Tensor, count: int) -> Tensor:
    """Every multiset of that many of the tokens, `(number, count)`; of none there is one."""
    if count == 0:
        return torch.empty(1, 0, dtype=torch.long)
    return torch.combinations(tokens, count, with_replacement=True).view(-1, count)


def _split(begin_Pa: Tensor, end_Qb: Tensor, size: int) -> Iterator[Piece]:
    yield from ((part, end_Qb) for part in begin_Pa.split(max(1, size // len(end_Qb))))

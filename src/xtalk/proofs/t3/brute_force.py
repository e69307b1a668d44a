"""Going through every input in float32, vectorised: how long it takes, and in which pieces it is done.

It proves nothing about rounding; a check competes with it in time. Seconds are CPU seconds of one core, as a
check uses one, and other work on the machine hardly changes them.
"""

from collections.abc import Iterator
from time import process_time

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.proofs.t3.network import Runner
from xtalk.proofs.t3.tasks import ProductTask
from xtalk.proofs.timing import BUDGET, Clock, Timing, least_seconds, one_core

ENDS = 64  # of a sampled piece, which share the sums of its beginnings
_SIZES = (1 << 12, 1 << 14, 1 << 16)  # inputs at a time, of which the fastest is taken

Piece = tuple[Tensor, Tensor]
"""Beginnings (P, a) and ends (Q, b) of sequences: every pair of them is an input."""


def time_inputs(runner: Runner, budget: float = BUDGET, clock: Clock = process_time) -> Timing:
    """How long going through every input takes; measured where it takes no longer than the budget."""
    generator = torch.Generator().manual_seed(0)

    def rate(size: int) -> float:
        runner.sampled(size, generator)  # the first run is slower
        began, counted = clock(), 0
        while clock() - began < budget / 8:
            counted += runner.sampled(size, generator)
        return counted / (clock() - began)

    with one_core():
        rates = {size: rate(size) for size in _SIZES}
    best = max(rates, key=rates.__getitem__)
    estimate = runner.distinct / rates[best]
    if estimate > budget:
        return Timing(estimate, estimated=True)
    return least_seconds(lambda: sum(inputs for _, inputs in runner.run(best)), clock=clock)


def pair_sums(
    table_VX: Float[Tensor, "V X"], begin_Pa: Int[Tensor, "P a"], end_Qb: Int[Tensor, "Q b"]
) -> Float[Tensor, "P Q X"]:
    """The sum of the table's rows for all tokens of a beginning and an end."""
    return table_VX[begin_Pa].sum(1)[:, None] + table_VX[end_Qb].sum(1)


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

"""Seconds of one core, and what a check and brute force say of each other in them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time

import torch

BUDGET = 0.2  # seconds to measure brute force in

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """The seconds of all inputs; `estimated`: from the rate on a sample of them, times their number."""

    seconds: float
    estimated: bool


def least_seconds(work: Callable[[], object], budget: float = BUDGET, clock: Clock = process_time) -> Timing:
    """The least time that the work takes, in as many runs as the budget allows, two at least."""
    times: list[float] = []
    with one_core():
        while len(times) < 2 or sum(times) < budget:
            began = clock()
            work()
            times.append(clock() - began)
    return Timing(min(times), estimated=False)


@contextmanager
def one_core() -> Iterator[None]:
    """Let torch use one thread only, as a check does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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

"""Wall time, processor time and peak memory of a piece of work, in a process of its own.

Needs nothing but the standard library, for peers' environments have no xtalk.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
once = False  # set by a child's command line


def work(
    warm_up: Callable[[], object],
    run: Callable[[], T],
    value: Callable[[T], float],
    scale: float = 1.0,
    before: int | None = None,
) -> dict[str, float]:
    """The seconds of a second run, the peak memory in bytes, and the result's value.

    warm_up is a tiny run, after which memory is counted, unless it is counted from `before`; seconds are
    multiplied by `scale`. By the values variants are seen to compute the same. Where the process runs `once`,
    the first run counts.
    """
    warm_up()
    before = peak_bytes() if before is None else before
    if not once:
        run()
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds * scale,
        "cpu_seconds": cpu * scale,
        "peak_bytes": max(0, peak_bytes() - before),
        "value": value(result),
    }


def peak_bytes() -> int:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

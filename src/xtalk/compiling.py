"""How loops are compiled by numba, kept on disk where there is a place for that, and run in threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """A decorator that compiles a loop, which then runs without Python's global lock; options: numba's.

    What is compiled is cached beside the module or in the user's cache folder. Where neither can be written
    (a read-only installation without a home), it is compiled anew in each process, within seconds.
    """

    def decorate(function: F) -> F:
        made: Any
        try:
            made = njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            made = njit(nogil=True, **options)(function)
        return made

    return decorate


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """The threads that compiled loops run in, made once."""
    return ThreadPoolExecutor(threads, thread_name_prefix="xtalk-kernel")


def in_threads(run: Callable[[slice], None], size: int) -> None:
    """Run over equal shares of `size` tokens or neurons, one thread each, as many as torch uses.

    Python threads rather than numba's own: numba's would reset torch's OpenMP thread count behind its back.
    """
    threads = min(torch.get_num_threads(), max(1, size // 64))
    if threads == 1:
        run(slice(0, size))
        return
    edges = [size * i // threads for i in range(threads + 1)]
    list(pool(threads).map(run, [slice(a, b) for a, b in pairwise(edges)]))

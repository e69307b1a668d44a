"""How the loops of this folder are compiled: by numba, and kept on disk where there is a place for that."""

from collections.abc import Callable
from typing import Any, TypeVar

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

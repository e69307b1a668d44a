"""Memory that tensors free stays with the process."""

import ctypes
import os
import sys

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_LARGEST = 2**30


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next allocation, up to a gibibyte a tensor.

    It would return every tensor above 32 MiB to the system, and get the next one page by page: a fifth of the
    time of penalties that run a model of 49,152 tokens on (docs/method.md). Without effect where the C
    library is another one, and where the user has set its MALLOC_ variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MAP, _LARGEST)
        mallopt(_TRIM, _LARGEST)

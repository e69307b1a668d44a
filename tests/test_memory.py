"""The command line keeps what large tensors free; the user's own settings stand."""

import subprocess
import sys

import pytest

LARGE_BLOCKS = """
import ctypes, torch
from xtalk.memory import keep_freed_memory
class Info(ctypes.Structure):  # mallinfo2 of glibc's malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
about = ctypes.CDLL(None).mallinfo2
about.restype = Info
keep_freed_memory()
before = about().hblks
tensor = torch.ones(25_000_000)
print(about().hblks - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize("own", [False, True])
def test_a_large_tensor_gets_no_mapping_of_its_own(own: bool):
    """What has a mapping of its own goes back to the system when it is freed."""
    environment = {"PATH": "", "MALLOC_ARENA_MAX": "4"} if own else {"PATH": ""}
    command = [sys.executable, "-c", LARGE_BLOCKS]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(found.stdout) == (1 if own else 0)

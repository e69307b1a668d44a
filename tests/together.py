"""Several processes that work together, as torchrun starts them: a function of a test module in each."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def together(module: str, function: str, *arguments: str, world: int = 2) -> list[tuple[int, str, str]]:
    """Call MODULE.FUNCTION(*arguments) in every rank; each one's exit code, stdout and stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}]; from {module} import {function} as f; f(*sys.argv[1:])"
    )
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = [process.communicate(timeout=300) for process in ranks]
    return [(process.returncode, *words) for process, words in zip(ranks, said, strict=True)]

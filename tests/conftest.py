"""Every test runs with xtalk's annotations checked: shapes by jaxtyping, types by beartype."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook
from skips import pytest_sessionfinish, pytest_terminal_summary

__all__ = ["pytest_sessionfinish", "pytest_terminal_summary"]  # hooks

# One thread: the same sums in the same order everywhere. Before torch is imported; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("xtalk", derandomize=True, deadline=None, database=None)
settings.load_profile("xtalk")

SOURCE = Path(__file__).parents[1] / "src"


def checked_modules() -> list[str]:
    """All modules of xtalk but those with compiled loops, which numba must see undecorated."""
    files = [
        f
        for f in SOURCE.glob("xtalk/**/*.py")
        if f.name != "__init__.py" and "import compiled" not in f.read_text()
    ]
    return [".".join(f.relative_to(SOURCE).with_suffix("").parts) for f in files]


install_import_hook(checked_modules(), "typechecking.check")
DEVICE = os.environ.get("XTALK_TEST_DEVICE")


def pytest_configure() -> None:
    """Make the device that stands in for a GPU known before any test differentiates; wait for no disk.

    No test outlives its machine, and a run syncs a hundred files.
    """
    os.fsync = lambda descriptor: None
    if not DEVICE:
        from stand_in import register  # loads torch

        register()


@pytest.fixture
def device() -> Iterator[object]:
    """The device that is tested: XTALK_TEST_DEVICE (such as cuda), or else one that stands in for a GPU."""
    import torch
    from stand_in import stand_in

    if DEVICE:
        yield torch.device(DEVICE)
    else:
        with stand_in() as there:
            yield there

"""What this machine is and has: versions, cores, speed, memory, disk. `xtalk doctor` shows it."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from xtalk.optional import EXTRAS

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numba", "python-flint")
_SECONDS = 0.3  # of products, for each precision
_LITTLE_DISK = 5e9


@dataclass(frozen=True)
class Fact:
    """One line about the machine; `advice` says what to do where something is missing or will go wrong."""

    name: str
    value: str
    advice: str = ""


def facts(folder: Path) -> Iterator[Fact]:
    """What a run in `folder` will find, one fact after the other; the speeds take a second."""
    yield Fact("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("xtalk", "xtalk-check", *_PACKAGES):
        yield Fact(package, _version(package))
    for extra in dict.fromkeys(EXTRAS.values()):
        missing = [name for name, of in EXTRAS.items() if of == extra and find_spec(name) is None]
        advice = f"pip install 'xtalk[{extra}]'" if missing else ""
        yield Fact(f"extra {extra}", f"without {', '.join(missing)}" if missing else "installed", advice)
    yield from _devices()
    yield from _room(folder)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> Iterator[Fact]:
    import torch

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    threads = torch.get_num_threads()
    advice = f"OMP_NUM_THREADS={cores} uses all cores" if threads < cores else ""
    yield Fact("cores", f"{cores}, of which torch uses {threads}", advice)
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield Fact(f"{name} products", f"{_products_per_second(dtype) / 1e9:.0f} GFLOP/s")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Fact(f"cuda:{index}", f"{about.name}, {about.total_memory / 1e9:.0f} GB")
    if not torch.cuda.is_available():
        yield Fact("GPU", "none that this torch sees")


def _products_per_second(dtype: "torch.dtype", size: int = 512) -> float:
    """Floating-point operations a second in square products on the CPU."""
    import torch

    a = torch.ones(size, size, dtype=dtype)
    torch.mm(a, a)  # the first product also sets up the library
    done, start = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - start < _SECONDS:
        torch.mm(a, a)
        done += 1
    return 2 * size**3 * done / (time.perf_counter() - start)


def _room(folder: Path) -> Iterator[Fact]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield Fact("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB")
    from huggingface_hub.constants import HF_HUB_CACHE

    for name, wanted in (("this folder", folder), ("hub's cache", Path(HF_HUB_CACHE))):
        place = next(path for path in (wanted, *wanted.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        advice = ""
        if not os.access(place, os.W_OK):
            advice = "not writable" + ("; set HF_HOME" if wanted != folder else "; choose another with --out")
        elif free < _LITTLE_DISK:
            advice = "little room: a model's weights and its activations need more"
        yield Fact(name, f"{wanted}, {free / 1e9:.0f} GB free", advice)

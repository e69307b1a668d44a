"""Paired runs, each in a process of its own: wall time, peak memory, and that both computed the same."""

import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from xtalk.errors import XtalkError

CHECKOUT = Path(__file__).parents[1]
T = TypeVar("T")
Variants = tuple[str, str, str]
"""Names of what is compared: ours, theirs, and the floor that neither can go below."""


def work(
    warm_up: Callable[[], object], run: Callable[[], T], value: Callable[[T], float], scale: float = 1.0
) -> dict[str, float]:
    """In a child: the seconds of a second run, the peak memory in bytes, and the result's value.

    warm_up is a tiny run, after which memory is counted; seconds are multiplied by `scale`. By the values
    variants are seen to compute the same.
    """
    warm_up()
    before = _peak_bytes()
    run()
    start = time.perf_counter()
    result = run()
    seconds = (time.perf_counter() - start) * scale
    return {"seconds": seconds, "peak_bytes": _peak_bytes() - before, "value": value(result)}


def compare(
    name: str,
    variants: Variants,
    pairs: int,
    arguments: Sequence[str],
    progress: Callable[[str, int, int], object],
) -> dict[str, object]:
    """Run the variants of a benchmark in turn, `pairs` times; a result of the schema xtalk.bench/1.

    arguments: of the children's command line. ratio: theirs over ours, [median, low, high]; seconds,
    peak_bytes: ours, median; floor_fraction: what part of our time the floor takes. Errors: XtalkError where
    ours and theirs did not compute the same.
    """
    ours, theirs, floor = variants
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for pair in range(pairs):
        for place, (variant, found) in enumerate(runs.items()):
            progress(name, 3 * pair + place, 3 * pairs)
            found.append(_child(name, variant, arguments))
        a, b = runs[ours][-1]["value"], runs[theirs][-1]["value"]
        if not math.isclose(a, b, rel_tol=1e-4):
            raise XtalkError(f"{name}: {ours} found {a}, {theirs} found {b}; expected the same")
    progress(name, 3 * pairs, 3 * pairs)
    seconds = {variant: [run["seconds"] for run in found] for variant, found in runs.items()}
    peaks = {variant: statistics.median(r["peak_bytes"] for r in found) for variant, found in runs.items()}
    ratios = [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    return {
        "name": name,
        "against": theirs,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
        "seconds": statistics.median(seconds[ours]),
        "peak_bytes": int(peaks[ours]),
        "peak_ratio": peaks[theirs] / max(peaks[ours], 1),
        "floor_fraction": statistics.median(seconds[floor]) / statistics.median(seconds[ours]),
    }


def _child(name: str, variant: str, arguments: Sequence[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.child", name, variant, *arguments]
    found = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise XtalkError(f"{name}: the variant {variant} ended with code {found.returncode}; see above")
    return json.loads(found.stdout.splitlines()[-1])


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

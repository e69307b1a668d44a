"""Paired runs, each in a process of its own: wall time, peak memory, and that both computed the same."""

import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def work(
    warm_up: Callable[[], object], run: Callable[[], T], value: Callable[[T], float], scale: float = 1.0
) -> None:
    """In a child: print the seconds of a second run, the peak memory, and the result's value.

    warm_up is a tiny run, after which memory is counted; seconds are multiplied by `scale`. By the values
    variants are seen to compute the same.
    """
    warm_up()
    before = _peak_bytes()
    run()
    start = time.perf_counter()
    result = run()
    seconds = (time.perf_counter() - start) * scale
    peak = _peak_bytes() - before
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "value": value(result)}))


def compare(name: str, ours: str, theirs: str, floor: str, pairs: int) -> dict[str, object]:
    """Run this script's variants in turn, `pairs` times; a result in the form of the schema xtalk.bench/1.

    ratio: theirs over ours, [median, low, high]; seconds, peak_bytes: ours, median; floor_fraction: what part
    of our time the floor takes.
    """
    runs: dict[str, list[dict[str, float]]] = {ours: [], theirs: [], floor: []}
    for pair in range(pairs):
        for variant, found in runs.items():
            found.append(_child(variant))
            print(f"{name} {pair + 1}/{pairs} {variant}: {_shown(found[-1])}", file=sys.stderr)
        a, b = runs[ours][-1]["value"], runs[theirs][-1]["value"]
        if not math.isclose(a, b, rel_tol=1e-4):
            raise SystemExit(f"{name}: {ours} found {a}, {theirs} found {b}; expected the same")
    seconds = {variant: [run["seconds"] for run in found] for variant, found in runs.items()}
    ratios = [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    peaks = {
        variant: statistics.median(run["peak_bytes"] for run in found) for variant, found in runs.items()
    }
    return {
        "name": name,
        "against": theirs,
        "ratio": [statistics.median(ratios), min(ratios), max(ratios)],
        "seconds": statistics.median(seconds[ours]),
        "peak_bytes": int(peaks[ours]),
        "peak_ratio": peaks[theirs] / max(peaks[ours], 1),
        "floor_fraction": statistics.median(seconds[floor]) / statistics.median(seconds[ours]),
    }


def report(results: list[dict[str, object]]) -> None:
    """Print all results as one JSON object."""
    print(json.dumps({"schema": "xtalk.bench/1", "results": results}, indent=1))


def _child(variant: str) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--variant", variant]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _shown(run: dict[str, float]) -> str:
    return f"{run['seconds']:.3f} s, {run['peak_bytes'] / 2**20:.0f} MiB, value {run['value']:.6g}"

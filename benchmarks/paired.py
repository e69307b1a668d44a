"""Paired runs, each in a process of its own: wall time, peak memory, and that both computed the same."""

import json
import math
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from xtalk.errors import XtalkError

CHECKOUT = Path(__file__).parents[1]
Variants = tuple[str, str, str]
"""Names of what is compared: ours, theirs, and the floor that neither can go below."""


def compare(
    name: str,
    variants: Variants,
    pairs: int,
    commands: Mapping[str, Sequence[str]],
    progress: Callable[[str, int, int], object],
    *,
    tokens: int | None = None,
    tolerance: float = 1e-4,
) -> dict[str, object]:
    """Run the variants of a benchmark in turn, `pairs` times; a result of the schema xtalk.bench/2.

    commands: what each variant runs, in a process of its own. tokens: of a run, where it has some.
    tolerance: relative, within which both compute the same. ratio: theirs over ours, [median, low, high];
    cpu_ratio: the same of processor time, which others on the machine change less; seconds, peak_bytes:
    ours, median; floor_fraction: what part of our processor time the floor takes. Errors: XtalkError where
    ours and theirs did not compute the same.
    """
    ours, theirs, floor = variants
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for pair in range(pairs):
        for place, (variant, found) in enumerate(runs.items()):
            progress(name, 3 * pair + place, 3 * pairs)
            found.append(_child(name, variant, commands[variant]))
        a, b = runs[ours][-1]["value"], runs[theirs][-1]["value"]
        if not math.isclose(a, b, rel_tol=tolerance):
            raise XtalkError(f"{name}: {ours} found {a}, {theirs} found {b}; expected the same")
    progress(name, 3 * pairs, 3 * pairs)

    def median(variant: str, what: str) -> float:
        return statistics.median(run[what] for run in runs[variant])

    def ratio(what: str) -> list[float]:
        ratios = [b[what] / a[what] for a, b in zip(runs[ours], runs[theirs], strict=True)]
        return [statistics.median(ratios), min(ratios), max(ratios)]

    seconds = median(ours, "seconds")
    return {
        "name": name,
        "against": theirs,
        "ratio": ratio("seconds"),
        "cpu_ratio": ratio("cpu_seconds"),
        "seconds": seconds,
        "tokens_per_second": None if tokens is None else tokens / seconds,
        "peak_bytes": int(median(ours, "peak_bytes")),
        "peak_ratio": median(theirs, "peak_bytes") / max(median(ours, "peak_bytes"), 1),
        "floor_fraction": median(floor, "cpu_seconds") / median(ours, "cpu_seconds"),
    }


def _child(name: str, variant: str, command: Sequence[str]) -> dict[str, float]:
    """What a variant measured, in a process of its own."""
    found = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        raise XtalkError(f"{name}: the variant {variant} ended with code {found.returncode}; see above")
    return json.loads(found.stdout.splitlines()[-1])

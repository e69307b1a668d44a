"""What the studies of proofs share: their page, and how a check is timed."""

from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import xtalk_check

PAGE = Path("docs/proofs/results.md")


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """The CPU time that the work takes, and what it returns."""
    began = process_time()
    made = work()
    return process_time() - began, made


def timed_check(folder: Path, name: str) -> tuple[float, xtalk_check.Verdict]:
    """The CPU seconds of a check, the least of three where it is quick, and the verdict."""
    certificate, specification, weights = (
        (folder / f"{name}{end}").read_bytes() for end in (".json", ".spec.json", ".weights")
    )

    def check() -> xtalk_check.Verdict:
        return xtalk_check.check(certificate, specification, weights)

    seconds, verdict = cpu_seconds(check)
    for _ in range(2 if seconds < 5 else 0):
        seconds = min(seconds, cpu_seconds(check)[0])
    if verdict.verdict != "accepted":
        raise SystemExit(f"{folder / name}: {verdict.reason}")
    return seconds, verdict

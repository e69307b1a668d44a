"""What the scripts share that write tables into the pages of docs/proofs."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import xtalk_check
from scipy.stats import t as student

PAGE = Path("docs/proofs/results.md")


def put(text: str, marker: str, content: str) -> str:
    """The page with what stands between a marker's two comments replaced."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"the page has no {begin} ... {end}")
    before, rest = text.split(begin, 1)
    return before + begin + "\n" + content + "\n" + end + rest.split(end, 1)[1]


def mean_interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half its 95 % interval (Student's t)."""
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean(values), half


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """The CPU time that the work takes, and what it returns."""
    began = process_time()
    made = work()
    return process_time() - began, made


def timed_check(folder: Path, name: str) -> tuple[float, xtalk_check.Verdict]:
    """The CPU seconds of a check, the least of three where it is quick, and the verdict."""
    files = [(folder / f"{name}{end}").read_bytes() for end in (".json", ".spec.json", ".weights")]
    seconds, verdict = cpu_seconds(lambda: xtalk_check.check(*files))
    for _ in range(2 if seconds < 5 else 0):
        seconds = min(seconds, cpu_seconds(lambda: xtalk_check.check(*files))[0])
    if verdict.verdict != "accepted":
        raise SystemExit(f"{folder / name}: {verdict.reason}")
    return seconds, verdict

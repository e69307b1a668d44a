"""What all studies share: their options, means over seeds, and tables in the pages of docs/."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from scipy.stats import sem
from scipy.stats import t as student

from xtalk.errors import XtalkError
from xtalk.files import write_text


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a study's docstring as it is."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds, and half the width of its 95 % interval (Student's t); two seeds or more."""
    half = float(student.ppf(0.975, len(values) - 1)) * float(sem(values))
    return sum(values) / len(values), half


def over_seeds(values: Sequence[float], digits: int = 2, *, bold: bool = False) -> str:
    """The mean over seeds, bold if wanted, and half its 95 % interval; of one seed its value alone."""
    mark = "**" * bold
    if len(values) < 2:
        return f"{mark}{values[0]:.{digits}f}{mark}"
    middle, half = mean_interval(values)
    return f"{mark}{middle:.{digits}f}{mark} ± {half:.{digits}f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heads = list(head)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def put(text: str, marker: str, content: str) -> str:
    """A page's text with what stands between the marks `<!-- marker -->` and `<!-- /marker -->` replaced.

    Errors: XtalkError where it has not each of them once.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise XtalkError(f"a page without one {begin} ... {end}; add it where the table is to stand")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def write_table(page: Path, marker: str, content: str) -> None:
    """Put content between the marks of a page."""
    write_text(page, put(page.read_text(), marker, content))

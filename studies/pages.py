"""What all studies share: their options, means over seeds, and tables that stand in the pages of docs/."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from scipy.stats import sem
from scipy.stats import t as student

from xtalk.errors import XtalkError
from xtalk.files import write_text

DOCS = Path("docs")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a study's docstring as it is."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds, and half the width of its 95 % interval (Student's t); two seeds or more."""
    half = float(student.ppf(0.975, len(values) - 1)) * float(sem(values))
    return sum(values) / len(values), half


def over_seeds(values: Sequence[float], digits: int = 2) -> str:
    """The mean over seeds and half its 95 % interval; of one seed its value alone."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    middle, half = mean_interval(values)
    return f"{middle:.{digits}f} ± {half:.{digits}f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heads = list(head)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def page_of(marker: str) -> Path:
    """The page of docs/ that has a place for a table, `<!-- marker --> ... <!-- /marker -->`.

    Errors: XtalkError where no page has it, or several have.
    """
    marks = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    found = [
        page
        for page in sorted(DOCS.rglob("*.md"))
        if all(page.read_text().count(mark) == 1 for mark in marks)
    ]
    if len(found) != 1:
        raise XtalkError(f"{len(found)} pages of {DOCS} have {marks[0]} ... {marks[1]}; expected one")
    return found[0]


def with_table(marker: str, content: str) -> str:
    """The text of that page with this content between its marks."""
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = page_of(marker).read_text().split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def write_table(marker: str, content: str) -> None:
    """Put content between the marks of the page that has them."""
    write_text(page_of(marker), with_table(marker, content))

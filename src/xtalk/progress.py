"""Progress, as a callback that long-running functions call: what is being done, and how far it is."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Report = Callable[[str, int, int], None]
"""report(what, done, total). A function with one task takes report(done, total): `partial(report, what)`."""

LINE_EVERY, NOTEBOOK_EVERY = 10.0, 0.2  # seconds, for each task

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, `progress_bars` shows warnings alone."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Xtalk's log on stderr, and a bar for each task in a terminal or a notebook, elsewhere lines.

    A line comes every ten seconds.
    """
    console = Console(stderr=True)
    logger, handler = logging.getLogger("xtalk"), _ConsoleHandler(console)
    logger.setLevel(logging.WARNING if _quiet.get() else logging.INFO)
    logger.addHandler(handler)
    try:
        if _quiet.get():
            yield silent
        elif console.is_jupyter:
            yield _notebook()
        elif console.is_terminal:
            with _bars(console) as report:
                yield report
        else:
            yield _lines(logger)
    finally:
        logger.removeHandler(handler)


@contextmanager
def _bars(console: Console) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


@dataclass(frozen=True)
class _Bar:
    """A bar as a notebook shows it, and as words where it is shown without."""

    what: str
    done: int
    total: int

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.done}" max="{self.total}"></progress>'
        return f"<div>{escape(self.what)} {bar} {self.done} of {self.total}</div>"

    def __repr__(self) -> str:
        return f"{self.what}: {self.done} of {self.total}"


def _notebook() -> Report:
    """A bar for each task below the cell, which stays with the notebook; needs no widgets."""
    display = import_module("IPython.display").display
    handles: dict[str, Any] = {}
    drawn: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in handles:
            handles[what] = display(_Bar(what, done, total), display_id=True)
        elif done >= total or now - drawn[what] > NOTEBOOK_EVERY:
            handles[what].update(_Bar(what, done, total))
        else:
            return
        drawn[what] = now

    return report


def _lines(logger: logging.Logger) -> Report:
    began: dict[str, tuple[float, int]] = {}
    printed: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        started, first = began.setdefault(what, (now, done))
        if now - printed.setdefault(what, started) < LINE_EVERY:
            return
        printed[what] = now
        left = (now - started) / (done - first) * (total - done) if done > first else None
        remaining = f", about {left:.0f} s left" if left else ""
        logger.info("%s: %d of %d%s", what, done, total, remaining)

    return report


class _ConsoleHandler(logging.Handler):
    """Prints through a rich console, which keeps bars below what is printed."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(f"xtalk: {record.getMessage()}", markup=False, highlight=False, soft_wrap=True)

"""Progress, as a callback that long-running functions call: what is being done, and how far it is."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Report = Callable[[str, int, int], None]
"""report(what, done, total)."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A bar on stderr for each thing that is reported, if that is a terminal; xtalk's log above them."""
    console = Console(stderr=True)
    logger, handler = logging.getLogger("xtalk"), _ConsoleHandler(console)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        try:
            yield report
        finally:
            logger.removeHandler(handler)


class _ConsoleHandler(logging.Handler):
    """Prints through a rich console, which keeps bars below what is printed."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(f"xtalk: {record.getMessage()}", markup=False, highlight=False, soft_wrap=True)

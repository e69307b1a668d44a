"""Trackers: where the numbers of a training go besides the run's own log.jsonl.

A tracker shows; it decides nothing. So it is no part of a run's configuration, and one that fails is given up
with a warning, and training goes on.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from xtalk.errors import XtalkError

Numbers = Mapping[str, float]

logger = logging.getLogger("xtalk")


@runtime_checkable
class Tracker(Protocol):
    """What a tracker must be able to do, for one training."""

    def log(self, step: int, numbers: Numbers) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """The training is over."""


class _Runs:
    """Weights & Biases, and Trackio, which has the same functions."""

    def __init__(self, package: str, folder: Path, name: str, config: dict[str, Any]) -> None:
        self._package = import_module(package)
        here = {"dir": str(folder)} if package == "wandb" else {}
        self._package.init(project="xtalk", name=f"{folder.name}/{name}", config=config, **here)

    def log(self, step: int, numbers: Numbers) -> None:
        self._package.log(dict(numbers), step=step)

    def close(self) -> None:
        self._package.finish()


class _TensorBoard:
    """Event files in the run folder: `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        import_module("tensorboard")  # torch's own message does not say what to install
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard" / name))

    def log(self, step: int, numbers: Numbers) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


TRACKERS: dict[str, Callable[[Path, str, dict[str, Any]], Tracker]] = {
    "wandb": lambda *given: _Runs("wandb", *given),
    "trackio": lambda *given: _Runs("trackio", *given),
    "tensorboard": _TensorBoard,
}
"""Name -> tracker of a training, from the run folder, the crosscoder's name and its settings."""


def check_trackers(names: Sequence[str]) -> None:
    """Errors: XtalkError for a name that is none of `TRACKERS`, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise XtalkError(f"no tracker {name!r}; expected one of {', '.join(TRACKERS)}")
        try:
            import_module(name)
        except ImportError as error:
            raise XtalkError(f"{name} cannot be loaded ({error}); install it: pip install {name}") from error


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, crosscoder: str, config: dict[str, Any]
) -> Iterator[Callable[[Numbers], None]]:
    """A function that gives each record of a training, with its `step`, to the trackers of these names."""
    with ExitStack() as stack:
        trackers: dict[str, Tracker] = {}
        for name in names:
            with _given_up(name, trackers):
                trackers[name] = TRACKERS[name](folder, crosscoder, config)
                stack.callback(_close, name, trackers)

        def log(record: Numbers) -> None:
            numbers = {key: value for key, value in record.items() if key != "step"}
            for name, tracker in list(trackers.items()):
                with _given_up(name, trackers):
                    tracker.log(int(record["step"]), numbers)

        yield log


def _close(name: str, trackers: dict[str, Tracker]) -> None:
    if name in trackers:
        with _given_up(name, trackers):
            trackers[name].close()


@contextmanager
def _given_up(name: str, trackers: dict[str, Tracker]) -> Iterator[None]:
    """Whatever goes wrong inside: warn, and use that tracker no more. What it prints is no result."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        trackers.pop(name, None)
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s failed (%s); training goes on without it, log.jsonl has everything", name, reason)

"""A dictionary of one format in another."""

from pathlib import Path

from xtalk.crosscoder.formats.format import Stored
from xtalk.crosscoder.formats.registry import WRITERS, read_folder
from xtalk.errors import XtalkError


def convert(stored: Stored, folder: Path, to: str, *, lossy: bool = False) -> tuple[str, ...]:
    """Write a crosscoder into a new or empty folder, in the format `to`, and return what was lost.

    Errors: XtalkError for an unknown format, a folder that holds something, a crosscoder that the format has
    no place for, and without `lossy` for one of which the format would lose something.
    """
    if to not in WRITERS:
        raise XtalkError(f"no format {to!r} to write; expected one of {', '.join(WRITERS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise XtalkError(f"{folder} is there and not empty; give a new folder")
    prepared = WRITERS[to].prepare(stored)
    if prepared.losses and not lossy:
        raise XtalkError(
            f"{to} would lose {'; and '.join(prepared.losses)}; nothing was written; give --lossy"
        )
    folder.mkdir(parents=True, exist_ok=True)
    prepared.write(folder)
    read_folder(folder)  # what cannot be read again is an error now, not later
    return prepared.losses

"""The formats that crosscoders are read from. A new format is a file beside this one and an entry here."""

import json
from contextlib import suppress
from pathlib import Path

from xtalk.crosscoder.formats.format import Format, Stored
from xtalk.crosscoder.formats.xtalk import XTALK
from xtalk.errors import XtalkError

FORMATS: tuple[Format, ...] = (XTALK,)
_LISTED = 6  # files of a folder that a refusal names


def read_folder(folder: Path) -> Stored:
    """The crosscoder in a folder. Errors: XtalkError says what it holds, and which formats are known."""
    for one in FORMATS:
        if one.detect(folder):
            return one.read(folder)
    known = "; ".join(f"{one.name} ({' and '.join(one.files)})" for one in FORMATS)
    raise XtalkError(
        f"{folder} holds {_contents(folder)}; expected a crosscoder in one of the known formats: {known}; "
        "save the crosscoder again, or give its folder"
    )


def _contents(folder: Path) -> str:
    """A folder's files for a refusal; of a JSON file also the architecture."""
    if not folder.is_dir():
        return "no files: it is a file itself" if folder.exists() else "no files: it does not exist"
    names = sorted(path.name for path in folder.iterdir())
    told = [f"{name}{_architecture(folder / name)}" for name in names[:_LISTED]]
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join(told + more) or "no files"


def _architecture(path: Path) -> str:
    if path.suffix != ".json":
        return ""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("architecture"), str):
            return f" (architecture {content['architecture']!r})"
        return " (no architecture)"
    return " (not JSON)"

"""The folder of a crosscoder: one that is here, or a download from the Hugging Face hub."""

import re
from pathlib import Path, PurePosixPath

from xtalk.crosscoder.formats.registry import FORMATS
from xtalk.errors import XtalkError
from xtalk.files import expanded

_HUB_NAME = re.compile(
    r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<part>[\w.=,+-]+(?:/[\w.=,+-]+)*))?(?:@(?P<revision>[\w./-]+))?"
)


def folder_of(source: str | Path) -> Path:
    """What `source` names: a folder or file that is here, or a download of a hub name.

    A hub name is OWNER/NAME, with a folder or file of the repository OWNER/NAME:FOLDER, with a revision
    OWNER/NAME@REVISION. What is here comes first. Only the files of known formats are downloaded. Errors:
    XtalkError for what is neither, and for a hub that cannot be reached or has no such repository.
    """
    folder = expanded(source)
    if folder.exists():
        return folder
    match = _HUB_NAME.fullmatch(source) if isinstance(source, str) else None
    if match is None or ".." in (match["part"] or "").split("/"):
        raise XtalkError(
            f"no folder {str(source)!r}; expected the folder of a crosscoder, or a hub name such as "
            "OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME:FOLDER; check the path"
        )
    try:
        import huggingface_hub  # here, for it is slow to import and few need it

        snapshot = huggingface_hub.snapshot_download(
            match["name"], revision=match["revision"], allow_patterns=_wanted(match["part"])
        )
        return Path(snapshot) / (match["part"] or "")
    except Exception as error:  # the hub's client raises errors of many unrelated classes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise XtalkError(
            f"no folder {source!r}, and the Hugging Face hub gave no such repository: {reason}; check the "
            "name, the revision and the network"
        ) from error


def _wanted(part: str | None) -> list[str]:
    """The files to download: those of any format in the folder, or the one file and what is beside it."""
    names = sorted({name for one in FORMATS for name in (*one.files, *one.more)})
    if part is None:
        return names
    if PurePosixPath(part).suffix == ".safetensors":
        return [part, str(PurePosixPath(part).with_name("config.yaml"))]
    return [f"{part}/{name}" for name in names]

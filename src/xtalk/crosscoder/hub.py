"""The folder of a crosscoder: one that is here, or a download from the Hugging Face hub."""

import re
from pathlib import Path

from xtalk.crosscoder.formats.registry import FORMATS
from xtalk.errors import XtalkError
from xtalk.files import expanded

_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


def folder_of(source: str | Path) -> Path:
    """The folder that `source` names, downloaded where it is a hub name, OWNER/NAME or OWNER/NAME@REVISION.

    A folder that is here comes first. Only the files of known formats are downloaded. Errors: XtalkError for
    what is neither, and for a hub that cannot be reached or has no such repository.
    """
    folder = expanded(source)
    if folder.exists():
        return folder
    match = _HUB_NAME.fullmatch(source) if isinstance(source, str) else None
    if match is None:
        raise XtalkError(
            f"no folder {str(source)!r}; expected the folder of a crosscoder, or a hub name such as "
            "OWNER/NAME or OWNER/NAME@REVISION; check the path"
        )
    wanted = sorted({name for one in FORMATS for name in one.files})
    try:
        import huggingface_hub  # here, for it is slow to import and few need it

        return Path(
            huggingface_hub.snapshot_download(
                match["name"], revision=match["revision"], allow_patterns=wanted
            )
        )
    except Exception as error:  # the hub's client raises errors of many unrelated classes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise XtalkError(
            f"no folder {source!r}, and the Hugging Face hub gave no such repository: {reason}; check the "
            "name, the revision and the network"
        ) from error

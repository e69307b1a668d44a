"""Crosscoders of the Hugging Face hub: the folder that a name means, and a crosscoder as a repository."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from torch import Tensor

from xtalk.crosscoder.card import Figures, card
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.formats.format import Stored
from xtalk.crosscoder.formats.registry import FORMATS, read_folder
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import write_crosscoder
from xtalk.errors import XtalkError
from xtalk.files import expanded
from xtalk.hub import download, hub_errors

_OWNER_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"
_HUB_NAME = re.compile(
    rf"(?P<name>{_OWNER_NAME})(?::(?P<part>[\w.=,+-]+(?:/[\w.=,+-]+)*))?(?:@(?P<revision>[\w./-]+))?"
)
CARD = "README.md"


class _Found(NamedTuple):
    """The folder of a crosscoder; of one from the hub also the repository's name with the commit."""

    folder: Path
    source: str | None


def folder_of(source: str | Path, revision: str | None = None) -> Path:
    """What `source` names: a folder or file that is here, or a download of a hub name.

    A hub name is OWNER/NAME, with a folder or file of the repository OWNER/NAME:FOLDER, with a revision
    OWNER/NAME@REVISION, which `revision` may give instead. What is here comes first. Only the files of known
    formats are downloaded, all of one commit. Errors: XtalkError for what is neither, and for a hub that
    cannot be reached, or has no such repository or revision for this user.
    """
    return _found(source, revision).folder


def stored_in(source: str | Path, revision: str | None = None) -> Stored:
    """The crosscoder of a folder or a hub name, as `folder_of` takes it.

    Of one from the hub, its provenance has the repository and the commit. Errors: XtalkError as `folder_of`,
    and for files that are broken or of no known format.
    """
    found = _found(source, revision)
    stored = read_folder(found.folder)
    if found.source is None:
        return stored
    return replace(stored, provenance=stored.provenance.model_copy(update={"source": found.source}))


def push(
    config: CrosscoderConfig,
    tensors: Mapping[str, Tensor],
    provenance: Provenance,
    name: str,
    figures: Figures | None,
    *,
    private: bool,
) -> str:
    """Put a crosscoder into the repository of that name, which is made if need be, in one commit.

    The commit has the crosscoder in xtalk's format, and a card. Returns OWNER/NAME@COMMIT. Errors: XtalkError
    for weights that are not finite, and for what the hub refuses; the repository then has no part of it.
    """
    if re.fullmatch(_OWNER_NAME, name) is None:
        raise XtalkError(f"no repository can be called {name!r}; expected OWNER/NAME, such as you/crosscoder")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_crosscoder(folder, config, tensors, provenance)
        (folder / CARD).write_text(card(name, config, provenance, figures), encoding="utf-8")
        with hub_errors(name):
            from huggingface_hub import CommitOperationAdd, HfApi  # here, for it is slow to import

            api = HfApi()
            api.create_repo(name, private=private or None, exist_ok=True)
            files = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
            return f"{name}@{api.create_commit(name, files, commit_message='A crosscoder of xtalk').oid}"


def _found(source: str | Path, revision: str | None) -> _Found:
    folder = expanded(source)
    if folder.exists():
        if revision is not None:
            raise XtalkError(f"{source} is a folder here, which has no revision {revision}; leave it out")
        return _Found(folder, None)
    match = _HUB_NAME.fullmatch(source) if isinstance(source, str) else None
    if match is None or ".." in (match["part"] or "").split("/"):
        raise XtalkError(
            f"no folder {str(source)!r}; expected the folder of a crosscoder, or a hub name such as "
            "OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME:FOLDER; check the path"
        )
    if revision is not None and match["revision"] not in (None, revision):
        raise XtalkError(f"{source} names a revision, and revision is {revision}; give one of them")
    return _download(match["name"], match["part"], match["revision"] or revision)


def _download(name: str, part: str | None, revision: str | None) -> _Found:
    snapshot = download(name, revision, _wanted(part))
    folder = snapshot / (part or "")
    if not folder.exists():
        where = f"{name}:{part}" if part else name
        raise XtalkError(
            f"{where} on the Hugging Face hub has no file of a crosscoder's; expected one of the formats "
            "of docs/formats.md; give the folder of the repository that has them, as OWNER/NAME:FOLDER"
        )
    return _Found(folder, f"{name}{f':{part}' if part else ''}@{snapshot.name}")


def _wanted(part: str | None) -> list[str]:
    """The files to download: those of any format in the folder, or the one file and what is beside it."""
    names = sorted({name for one in FORMATS for name in (*one.files, *one.more)})
    if part is None:
        return names
    if PurePosixPath(part).suffix == ".safetensors":
        return [part, str(PurePosixPath(part).with_name("config.yaml"))]
    return [f"{part}/{name}" for name in names]

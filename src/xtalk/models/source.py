"""Where a model's files are: a folder or a GGUF file that is here, or a download from the hub."""

import re
from pathlib import Path

from xtalk.errors import XtalkError
from xtalk.files import expanded
from xtalk.hub import download

GGUF = ".gguf"
_HUB_NAME = re.compile(
    r"(?P<name>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?::(?P<file>[\w.-]+\.gguf))?(?:@(?P<revision>[\w./-]+))?"
)
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
_CODE = "*.py"
_BELOW = "*/*"  # files of folders of the repository, such as other frameworks'
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
TORCH = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WEIGHTS = {
    SAFETENSORS: ("model.safetensors", "model-*.safetensors"),
    TORCH: ("pytorch_model.bin", "pytorch_model-*.bin"),
}
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def located(source: str | Path, revision: str | None, *, code: bool, others: str) -> tuple[Path, str]:
    """The folder or GGUF file that a source means, and the model's name.

    source: a folder or a .gguf file that is here, or a hub name: NAME or OWNER/NAME, OWNER/NAME:FILE.gguf,
    each with @REVISION, which `revision` may give instead. Of a repository, the files of its top folder are
    downloaded that xtalk reads: configuration, tokenizer, weights in safetensors or else in .bin, and Python
    files if `code`. others: what else the source might have been, for the message. Errors: XtalkError for
    what is neither, and for a hub that is out of reach, or has no such repository or revision for this user.
    """
    path = expanded(source)
    if path.is_dir() or (path.is_file() and path.suffix == GGUF):
        if revision is not None:
            raise XtalkError(f"{source} is here, and has no revision {revision}; leave it out")
        return path, path.resolve().name
    match = None if path.exists() else _HUB_NAME.fullmatch(str(source))
    if match is None:
        raise XtalkError(
            f"no folder {str(source)!r}; expected a model folder, a .gguf file, a hub name (owner/name) or "
            f"one of {others}; check the path"
        )
    if revision is not None and match["revision"] not in (None, revision):
        raise XtalkError(f"{source} names a revision, and revision is {revision}; give one of them")
    name, file, chosen = match["name"], match["file"], match["revision"] or revision
    called = f"{source}@{revision}" if revision is not None and match["revision"] is None else str(source)
    if file is not None:
        made = download(name, chosen, [file])
        if not (made / file).is_file():
            raise XtalkError(f"{name} on the Hugging Face hub has no file {file}; choose one that it has")
        return made / file, called
    return _repository(name, chosen, code=code), called


def _repository(name: str, revision: str | None, *, code: bool) -> Path:
    """The folder of a repository's files, all of one commit: weights in the first format that it has."""
    small = [*_SMALL, *([_CODE] if code else [])]
    folder = download(name, revision, small, not_files=[_BELOW])
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        return download(name, folder.name, [*small, ADAPTER_WEIGHTS], not_files=[_BELOW])
    for names, patterns in _WEIGHTS.items():
        download(name, folder.name, [*small, *patterns], not_files=[_BELOW])
        if any((folder / one).is_file() for one in names):
            break
    return folder

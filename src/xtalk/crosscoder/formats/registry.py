"""The formats that crosscoders are read from and written in. A new format is a file beside this one and "
"an entry here.
"""

import json
from contextlib import suppress
from pathlib import Path

from xtalk.crosscoder.formats.circuit_tracer import CIRCUIT_TRACER
from xtalk.crosscoder.formats.crosscoder_learning import CROSSCODER_LEARNING, CROSSCODER_LEARNING_WRITER
from xtalk.crosscoder.formats.crosslayer import CROSSLAYER
from xtalk.crosscoder.formats.dictionary_learning import DICTIONARY_LEARNING
from xtalk.crosscoder.formats.format import Format, Stored
from xtalk.crosscoder.formats.gemma_scope import GEMMA_SCOPE
from xtalk.crosscoder.formats.gemma_scope_2 import GEMMA_SCOPE_2
from xtalk.crosscoder.formats.kissane import KISSANE
from xtalk.crosscoder.formats.llama_scope import LLAMA_SCOPE
from xtalk.crosscoder.formats.llamascopium import LLAMASCOPIUM
from xtalk.crosscoder.formats.paper import PAPER, PAPER_WRITER
from xtalk.crosscoder.formats.saelens import SAELENS, SAELENS_WRITER
from xtalk.crosscoder.formats.sparsify import SPARSIFY
from xtalk.crosscoder.formats.writing import Writer
from xtalk.crosscoder.formats.xtalk import XTALK, XTALK_WRITER
from xtalk.errors import XtalkError

FORMATS: tuple[Format, ...] = (
    XTALK,
    SAELENS,
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    DICTIONARY_LEARNING,
    CROSSCODER_LEARNING,
    SPARSIFY,
    LLAMASCOPIUM,
    LLAMA_SCOPE,
    CIRCUIT_TRACER,
    PAPER,
    KISSANE,
    CROSSLAYER,
)
WRITERS: dict[str, Writer] = {
    one.name: one for one in (XTALK_WRITER, SAELENS_WRITER, CROSSCODER_LEARNING_WRITER, PAPER_WRITER)
}
_LISTED = 6  # files of a folder that a refusal names


def format_of(folder: Path) -> Format:
    """The one format that a folder, or the file of one dictionary, is of.

    Errors: XtalkError for none, which says what the folder holds and which formats are known, and for
    several; and for a file that is none.
    """
    _check_regular(folder)
    claims = [one for one in FORMATS if one.detect(folder)]
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise XtalkError(
            f"{folder} may be of several formats: {' and '.join(one.name for one in claims)}; keep the "
            "files of one of them in a folder of its own"
        )
    raise XtalkError(
        f"{folder} holds {_contents(folder)}; expected a crosscoder in one of the known formats: "
        f"{', '.join(one.name for one in FORMATS)}; give the folder of one"
    )


def _check_regular(folder: Path) -> None:
    """Errors: XtalkError for a known name that is no regular file: devices have no end, and pipes wait."""
    for name in sorted({name for one in FORMATS for name in one.files}):
        if (folder / name).exists() and not (folder / name).is_file():
            raise XtalkError(f"{folder / name} is no regular file; expected one of a crosscoder's; remove it")


def read_folder(folder: Path) -> Stored:
    """The crosscoder in a folder. Errors: XtalkError as `format_of`, and for files that are broken."""
    return format_of(folder).read(folder)


def _contents(folder: Path) -> str:
    """A folder's files for a refusal; of a JSON file also the architecture."""
    if not folder.is_dir():
        return "no files: it is a file itself" if folder.exists() else "no files: it does not exist"
    names = sorted(path.name for path in folder.iterdir())
    listed = [f"{name}{_architecture(folder / name)}" for name in names[:_LISTED]]
    more = [f"{len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join(listed + more) or "no files"


def _architecture(path: Path) -> str:
    if path.suffix != ".json" or not path.is_file():
        return ""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("architecture"), str):
            return f" (architecture {content['architecture']!r})"
        return " (no architecture)"
    return " (not JSON)"

"""Documents from files, folders, the Hugging Face hub or the text shipped with xtalk."""

import gzip
import hashlib
import importlib.resources
import json
import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from xtalk.errors import XtalkError
from xtalk.files import expanded
from xtalk.optional import extras_named

logger = logging.getLogger("xtalk")

END_OF_TEXT = "<|endoftext|>"
SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
EMBEDDED = "embedded"
_EMBEDDED_FILE = "embedded_text.jsonl.xz"


def read_documents(source: str | Path | None = None, max_characters: int | None = None) -> list[str]:
    """Read the documents of a file, a folder, a hub dataset, or the embedded text.

    `source` is one of
    - None or "embedded": the text shipped with xtalk, written by the embedded model itself;
    - a .txt file: split at `<|endoftext|>` where the file has that marker, else at blank lines;
    - a .jsonl file: one JSON object with the key "text" per line;
    - either of them as .gz;
    - a folder: its files of these kinds, in the order of their names;
    - any other name: a Hugging Face dataset, "NAME" or "NAME:CONFIG", split "train", column "text", streamed.

    Reading stops after the document that reaches `max_characters`, so that memory stays bounded.
    Empty documents are left out, and copies of a document (equal up to white space), which would count as
    independent ones. How many copies there are, and which files of a folder are passed over, is logged.
    Raises XtalkError for a source that is missing, empty or undecodable.
    """
    return _taken(source, _documents(source), max_characters)


def read_start(source: str | Path | None, max_characters: int) -> tuple[list[str], bool]:
    """What `read_documents` reads, and whether the source has more."""
    texts = _documents(source)
    return _taken(source, texts, max_characters), any(text.strip() for text in texts)


def _taken(source: str | Path | None, texts: Iterator[str], max_characters: int | None) -> list[str]:
    documents: list[str] = []
    seen, characters = _Seen(), 0
    for text in texts:
        if not text.strip() or not seen.is_new(text):
            continue
        documents.append(text)
        characters += len(text)
        if max_characters is not None and characters >= max_characters:
            break
    if not documents:
        raise XtalkError(f"{source} holds no text; expected at least one document; give another --text")
    _say_dropped(seen.copies, f"{source}: ")
    return documents


class _Seen:
    """Which documents there were, up to white space, and how many came again."""

    def __init__(self, documents: Iterable[str] = ()) -> None:
        self._digests = {_hash(text, 0) for text in documents}
        self.copies = 0

    def is_new(self, text: str) -> bool:
        """Whether the document was not seen before; now it is."""
        digest = _hash(text, 0)
        if digest in self._digests:
            self.copies += 1
            return False
        self._digests.add(digest)
        return True


def _say_dropped(copies: int, where: str = "") -> None:
    if copies:
        logger.warning("%s%d documents are copies of others; they are dropped", where, copies)


def distinct(docs: Iterable[str]) -> list[str]:
    """The documents without copies, equal up to white space, in order; how many are dropped is logged."""
    return without(docs, ())


def split_documents(docs: list[str], held_out: float, seed: int) -> tuple[list[str], list[str]]:
    """Split into training and held-out documents, after removing duplicates.

    Duplicates (equal up to white space) go before the split, so no held-out document is also a training
    document. The documents with the smallest hash of seed and text are held out, a fraction `held_out` of
    them and at least one, which depends neither on their order nor on how often each occurs.
    Both lists keep the order of `docs`.
    """
    if not 0 < held_out < 1:
        raise XtalkError(f"held-out fraction {held_out}; expected a number between 0 and 1, such as 0.05")
    by_hash: dict[bytes, str] = {}
    for text in docs:
        by_hash.setdefault(_hash(text, seed), text)
    if len(by_hash) < 2:
        raise XtalkError(
            f"the text has {len(by_hash)} distinct document(s); expected 2 or more, to hold one out; "
            f"separate documents by {END_OF_TEXT} or blank lines"
        )
    _say_dropped(len(docs) - len(by_hash))
    count = min(math.ceil(held_out * len(by_hash)), len(by_hash) - 1)
    chosen = set(sorted(by_hash)[:count])
    train = [text for digest, text in by_hash.items() if digest not in chosen]
    return train, [text for digest, text in by_hash.items() if digest in chosen]


def without(docs: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """The distinct documents of `docs` that are not among `held_out`, equal up to white space, in order.

    How many are dropped is logged.
    """
    seen = _Seen(held_out)
    kept = [text for text in docs if seen.is_new(text)]
    _say_dropped(seen.copies)
    return kept


def _hash(text: str, seed: int) -> bytes:
    words = " ".join(text.split())
    return hashlib.sha256(f"{seed}\n{words}".encode()).digest()


def _documents(source: str | Path | None) -> Iterator[str]:
    if source is None or source == EMBEDDED:
        return _embedded()
    path = expanded(source)
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return _file(path)
    if isinstance(source, Path) or str(source).endswith(SUFFIXES) or str(source).startswith((".", "/", "~")):
        raise XtalkError(f"{source} does not exist; expected a text file or a folder of text files")
    return _hub(source)


def _embedded() -> Iterator[str]:
    resource = importlib.resources.files("xtalk.data") / _EMBEDDED_FILE
    if not resource.is_file():
        raise XtalkError("this installation of xtalk has no embedded text; reinstall it or give --text")
    try:
        import lzma
    except ImportError as error:  # Pythons that were built without the library
        raise XtalkError("this Python has no lzma, which the embedded text needs; give --text") from error
    with resource.open("rb") as raw, TextIOWrapper(lzma.LZMAFile(raw), encoding="utf-8") as file:
        yield from _json_lines(file, "embedded text")


def _folder(path: Path) -> Iterator[str]:
    shown = sorted(file for file in path.iterdir() if file.name[0] != ".")
    files = [
        file for file in shown if file.name.endswith(SUFFIXES) and file.is_file() and file.stat().st_size
    ]
    passed_over = [file.name for file in shown if file not in files]
    if not files:
        seen = f"; it has {_listed(passed_over)}" if passed_over else ""
        raise XtalkError(f"the folder {path} has no text{seen}; expected files in {', '.join(SUFFIXES)}")
    if passed_over:
        read = _listed([file.name for file in files])
        logger.warning("%s: text is read from %s; passed over: %s", path, read, _listed(passed_over))
    for file in files:
        yield from _file(file)


def _listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _file(path: Path) -> Iterator[str]:
    if not path.name.endswith(SUFFIXES):
        raise XtalkError(f"{path} is no kind of text known here; expected a name in {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise XtalkError(f"{path} is empty; expected text")
    try:
        if path.name.removesuffix(".gz").endswith(".jsonl"):
            with _open(path) as file:
                yield from _json_lines(file, str(path))
        else:
            with _open(path) as file:
                marked = any(END_OF_TEXT in line for line in file)
            with _open(path) as file:
                yield from _marked(file) if marked else _paragraphs(file)
    except UnicodeDecodeError as error:
        raise XtalkError(f"{path} is not UTF-8 text ({error.reason}); convert it to UTF-8") from error
    except (EOFError, OSError, zlib.error) as error:
        raise XtalkError(f"{path} cannot be read: {error}") from error


def _open(path: Path) -> TextIOWrapper:
    zipped = path.name.endswith(".gz")
    # "utf-8-sig" also drops the byte-order mark that some editors write
    return TextIOWrapper(gzip.GzipFile(path) if zipped else path.open("rb"), encoding="utf-8-sig")


def _marked(lines: Iterable[str]) -> Iterator[str]:
    """Documents between end-of-text markers, which may stand anywhere in a line."""
    held: list[str] = []
    for line in lines:
        first, *rest = line.split(END_OF_TEXT)
        held.append(first)
        for part in rest:
            yield "".join(held).strip()
            held = [part]
    yield "".join(held).strip()


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        else:
            yield "".join(held).strip()
            held = []
    yield "".join(held).strip()


def _json_lines(lines: Iterable[str], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _json_text(line, f"{name}, line {number}")


def _json_text(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise XtalkError(f'{where} is not JSON; expected an object such as {{"text": "..."}}') from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise XtalkError(f'{where} has no "text" string; expected an object such as {{"text": "..."}}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise XtalkError(f"{where} has half of a surrogate pair; drop or repair that line") from error
    return text


def _hub(source: str) -> Iterator[str]:
    name, _, config = source.partition(":")
    unknown = f"{source} is no file or folder here, and the hub gave no dataset of that name"
    try:
        with extras_named():
            import datasets
    except XtalkError as error:
        raise XtalkError(f"{source} is no file or folder here; for a dataset of the hub, {error}") from error
    try:
        rows: Iterable[Any] = datasets.load_dataset(name, config or None, split="train", streaming=True)
        for row in rows:
            if not isinstance(row.get("text"), str):
                raise XtalkError(f'dataset {source} has the columns {list(row)}; expected a column "text"')
            yield row["text"]
    except XtalkError:
        raise
    except Exception as error:  # the hub's client raises errors of many unrelated classes
        reason = (str(error).splitlines() or [""])[0]
        raise XtalkError(f"{unknown}: {type(error).__name__}: {reason}") from error

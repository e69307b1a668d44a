"""Documents from files, folders, the Hugging Face hub or the text shipped with xtalk."""

import gzip
import hashlib
import importlib.resources
import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from xtalk.data.chat import Render, conversation
from xtalk.data.rows import csv_rows, has_column, hub_rows, json_rows, parquet_rows
from xtalk.errors import XtalkError
from xtalk.files import expanded

logger = logging.getLogger("xtalk")

END_OF_TEXT = "<|endoftext|>"
SUFFIXES = (".txt", ".jsonl", ".csv", ".txt.gz", ".jsonl.gz", ".csv.gz", ".parquet")
EMBEDDED = "embedded"
_EMBEDDED_FILE = "embedded_text.jsonl.xz"
_LONGEST = 1 << 27  # characters of a line or document; a small .gz may hold any number


@dataclass(frozen=True)
class TextSource:
    """Where documents come from, and what of it is a document.

    source: None or "embedded" for the text shipped with xtalk; a file or a folder of files; or a data set of
    the Hugging Face hub, NAME or NAME:CONFIG, of which `split` is streamed. column: which one of rows, of
    .jsonl, .csv, .parquet and data sets; by default "text", or "messages" with chat. chat: whether documents
    are conversations, in the model's chat template: lists of messages with a role and a content, or texts,
    which are then one message of a user.

    >>> xtalk.TextSource("stories.csv", column="story")
    TextSource(source='stories.csv', column='story', split='train', chat=False)
    """

    source: str | Path | None = None
    column: str | None = None
    split: str = "train"
    chat: bool = False

    @property
    def read_column(self) -> str:
        """The column that is read."""
        return self.column or ("messages" if self.chat else "text")

    def __str__(self) -> str:
        return str(self.source)


def read_documents(
    source: str | Path | TextSource | None = None,
    max_characters: int | None = None,
    render: Render | None = None,
) -> list[str]:
    """Read the documents of a file, a folder, a hub dataset, or the embedded text.

    `source` is a `TextSource`, or what one is made of:
    - None or "embedded": the text shipped with xtalk, written by the embedded model itself;
    - a .txt file: split at `<|endoftext|>` where the file has that marker, else at blank lines;
    - a .jsonl file: one JSON object a line, with the column as key; a .csv file, whose first row names the
      columns; each of these three as .gz; or a .parquet file;
    - a folder: its files of these kinds, in the order of their names; tables without the column are no text;
    - any other name: a Hugging Face dataset, "NAME" or "NAME:CONFIG", streamed.

    render: the chat template, which a TextSource of conversations needs. Reading stops after the document
    that reaches `max_characters`, so that memory stays bounded.
    Empty documents are left out, and copies of a document (equal up to white space), which would count as
    independent ones. How many copies there are, and which files of a folder are passed over, is logged.
    Raises XtalkError for a source that is missing, empty or undecodable.
    """
    text = source if isinstance(source, TextSource) else TextSource(source)
    return _taken(text, _documents(text, render), max_characters)


def read_start(
    source: str | Path | TextSource | None, max_characters: int, render: Render | None = None
) -> tuple[list[str], bool]:
    """What `read_documents` reads, and whether the source has more."""
    text = source if isinstance(source, TextSource) else TextSource(source)
    texts = _documents(text, render)
    return _taken(text, texts, max_characters), any(text.strip() for text in texts)


def _taken(source: TextSource, texts: Iterator[str], max_characters: int | None) -> list[str]:
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


def _documents(text: TextSource, render: Render | None) -> Iterator[str]:
    if text.chat and render is None:
        raise XtalkError(f"{text} has conversations, which need the chat template of a model's tokenizer")
    if not text.chat:
        return _plain(text)
    assert render is not None
    return (render(conversation(value, where)) for where, value in _values(text))


def _plain(text: TextSource) -> Iterator[str]:
    for where, value in _values(text):
        if not isinstance(value, str):
            raise XtalkError(
                f'{where} has no "{text.read_column}" string; expected an object such as '
                f'{{"{text.read_column}": "..."}}'
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise XtalkError(f"{where} has half of a surrogate pair; drop or repair that line") from error
        yield value


def _values(text: TextSource) -> Iterator[tuple[str, object]]:
    """What is to be a document each, and for messages where it stands."""
    source, column = text.source, text.read_column
    if source is None or source == EMBEDDED:
        return _embedded()
    path = expanded(source)
    if path.is_dir():
        return _folder(path, column)
    if path.exists():
        return _file(path, column)
    if isinstance(source, Path) or str(source).endswith(SUFFIXES) or str(source).startswith((".", "/", "~")):
        raise XtalkError(f"{source} does not exist; expected a text file or a folder of text files")
    return hub_rows(source, text.split, column)


def _embedded() -> Iterator[tuple[str, object]]:
    resource = importlib.resources.files("xtalk.data") / _EMBEDDED_FILE
    if not resource.is_file():
        raise XtalkError("this installation of xtalk has no embedded text; reinstall it or give --text")
    try:
        import lzma
    except ImportError as error:  # Pythons that were built without the library
        raise XtalkError("this Python has no lzma, which the embedded text needs; give --text") from error
    with resource.open("rb") as raw, TextIOWrapper(lzma.LZMAFile(raw), encoding="utf-8") as file:
        yield from json_rows(file, "embedded text", "text")


def _folder(path: Path, column: str) -> Iterator[tuple[str, object]]:
    shown = sorted(file for file in path.iterdir() if file.name[0] != ".")
    files = [file for file in shown if _has_text(file, column)]
    passed_over = [file.name for file in shown if file not in files]
    if not files:
        seen = f"; it has {_listed(passed_over)}" if passed_over else ""
        raise XtalkError(f"the folder {path} has no text{seen}; expected files in {', '.join(SUFFIXES)}")
    if passed_over:
        read = _listed([file.name for file in files])
        logger.warning("%s: text is read from %s; passed over: %s", path, read, _listed(passed_over))
    for file in files:
        yield from _file(file, column)


def _has_text(file: Path, column: str) -> bool:
    """Whether a file of a folder is read: one of a known kind, not empty, and of a table with the column."""
    if not file.name.endswith(SUFFIXES) or not file.is_file() or not file.stat().st_size:
        return False
    if _kind(file) == ".parquet":
        return has_column(file, None, column)
    if _kind(file) == ".csv":
        with _open(file) as lines:
            return has_column(file, _lines(file, lines), column)
    return True


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _file(path: Path, column: str) -> Iterator[tuple[str, object]]:
    if not path.name.endswith(SUFFIXES):
        raise XtalkError(f"{path} is no kind of text known here; expected a name in {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise XtalkError(f"{path} is empty; expected text")
    kind = _kind(path)
    try:
        if kind == ".parquet":
            yield from parquet_rows(path, column)
        elif kind == ".txt":
            with _open(path) as file:
                marked = any(END_OF_TEXT in line for line in _lines(path, file))
            with _open(path) as file:
                lines = _lines(path, file)
                texts = (_marked if marked else _paragraphs)(lines, path)
                yield from ((str(path), text) for text in texts)
        else:
            with _open(path) as file:
                rows = json_rows if kind == ".jsonl" else csv_rows
                yield from rows(_lines(path, file), str(path), column)
    except UnicodeDecodeError as error:
        raise XtalkError(f"{path} is not UTF-8 text ({error.reason}); convert it to UTF-8") from error
    except (EOFError, OSError, zlib.error) as error:
        raise XtalkError(f"{path} cannot be read: {error}") from error


def _open(path: Path) -> TextIOWrapper:
    zipped = path.name.endswith(".gz")
    # "utf-8-sig" also drops the byte-order mark that some editors write; CSV has line ends inside values
    newline = "" if _kind(path) == ".csv" else None
    raw = gzip.GzipFile(path) if zipped else path.open("rb")
    return TextIOWrapper(raw, encoding="utf-8-sig", newline=newline)


def _lines(path: Path, file: TextIOWrapper) -> Iterator[str]:
    """The lines of a file. Errors: XtalkError for one that memory may not hold."""
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise _too_long(path)
        yield line


def _too_long(path: Path) -> XtalkError:
    return XtalkError(f"{path} has a line or document of more than {_LONGEST} characters; split it")


class _Held:
    """The parts of a document so far. Errors: XtalkError for one that memory may not hold."""

    def __init__(self, path: Path) -> None:
        self._path, self._parts, self._size = path, list[str](), 0

    def add(self, part: str) -> None:
        self._parts.append(part)
        self._size += len(part)
        if self._size > _LONGEST:
            raise _too_long(self._path)

    def taken(self) -> str:
        """The document; from here on the next."""
        document = "".join(self._parts).strip()
        self._parts, self._size = [], 0
        return document


def _marked(lines: Iterable[str], path: Path) -> Iterator[str]:
    """Documents between end-of-text markers, which may stand anywhere in a line."""
    held = _Held(path)
    for line in lines:
        first, *rest = line.split(END_OF_TEXT)
        held.add(first)
        for part in rest:
            yield held.taken()
            held.add(part)
    yield held.taken()


def _paragraphs(lines: Iterable[str], path: Path) -> Iterator[str]:
    held = _Held(path)
    for line in lines:
        if line.strip():
            held.add(line)
        else:
            yield held.taken()
    yield held.taken()

"""Reading and splitting documents."""

import gzip
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtalk.data import distinct, read_documents, split_documents, without
from xtalk.errors import XtalkError


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "source": "x"}) + "\n" for text in texts))
    return path


def test_txt_splits_at_the_marker_wherever_it_stands(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("<|endoftext|>One.\n\nStill one.\n<|endoftext|>\nTwo.<|endoftext|>Three.\n<|endoftext|>")
    assert read_documents(path) == ["One.\n\nStill one.", "Two.", "Three."]


def test_txt_without_marker_splits_at_blank_lines(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffOne.\r\nStill one.\r\n \r\n\r\nTwo.".encode())
    assert read_documents(str(path)) == ["One.\nStill one.", "Two."]


def words(text: str) -> str:
    return " ".join(text.split())


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, unique_by=words
    )
)
def test_jsonl_gives_back_the_texts(texts: list[str], tmp_path_factory: pytest.TempPathFactory):
    assert read_documents(write_jsonl(tmp_path_factory.mktemp("d") / "a.jsonl", texts)) == texts


def test_gz_and_folder_in_order_of_names(tmp_path: Path):
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "second"}\n\n{"text": "  "}\n')
    with gzip.open(tmp_path / "c.txt.gz", "wt") as file:
        file.write("third\n\nfourth")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "notes.md").write_text("not text to read")
    assert read_documents(tmp_path) == ["first", "second", "third", "fourth"]


def test_reading_stops_at_max_characters(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", ["12345", "67890", "abcde"])
    (tmp_path / "b.jsonl").write_text("never read, or it would be an error")
    assert read_documents(tmp_path, max_characters=6) == ["12345", "67890"]


def test_copies_of_a_document_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_jsonl(tmp_path / "a.jsonl", ["one two", "three"])
    assert read_documents(tmp_path) == ["one two", "three"] and not caplog.text
    (tmp_path / "b.txt").write_text("three\n\nfour\n\none  two\n\nfour")
    assert read_documents(tmp_path) == ["one two", "three", "four"]
    assert f"{tmp_path}: 3 documents are copies of others" in caplog.text
    caplog.clear()
    assert distinct(["a b", "a  b", "c"]) == ["a b", "c"]
    assert split_documents(["a b", "a  b", "c"], 0.5, 0) in [(["a b"], ["c"]), (["c"], ["a b"])]
    assert without(["a", "c", "d"], ["d"]) == ["a", "c"]
    assert caplog.text.count("1 documents are copies of others") == 3


def test_the_embedded_text_has_no_copies():
    documents = read_documents()
    assert len({words(text) for text in documents}) == len(documents) == 5095


def test_a_folder_of_mixed_files_says_what_is_read_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "a.txt").write_text("one")
    read_documents(tmp_path)
    assert not caplog.text
    for name in ("b.md", "c.parquet", "d.json", "e.txt", "f.csv", "g.docx"):
        (tmp_path / name).write_text("" if name == "e.txt" else "two")
    (tmp_path / "sub").mkdir()
    assert read_documents(tmp_path) == ["one"]
    assert (
        "text is read from a.txt; passed over: b.md, c.parquet, d.json, e.txt, f.csv and 2 more"
        in caplog.text
    )
    (tmp_path / "a.txt").unlink()
    with pytest.raises(XtalkError, match=r"has no text; it has b.md.* and 2 more; expected files in \.txt"):
        read_documents(tmp_path)


def test_embedded_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(XtalkError, match="no embedded text"):
        read_documents()
    with lzma.open(tmp_path / "embedded_text.jsonl.xz", "wt") as file:
        file.write('{"text": "shipped"}\n')
    assert read_documents() == read_documents("embedded") == ["shipped"]


def test_a_python_without_lzma_reads_other_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lzma", None)
    (tmp_path / "a.txt").write_text("some text")
    assert read_documents(tmp_path) == ["some text"]
    with pytest.raises(XtalkError, match="has no lzma"):
        read_documents()


GZIPPED = gzip.compress(b"some text, and more of it\n" * 9)

BAD_FILES = {
    "empty.txt": (b"", "is empty"),
    "blank.txt": (b" \n\n \n", "holds no text"),
    "markers.txt": (b"<|endoftext|>\n<|endoftext|>", "holds no text"),
    "latin.txt": ("caf\xe9 is long".encode("latin-1"), "not UTF-8"),
    "picture.png": (b"\x89PNG", "no kind of text known"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
    "deep.jsonl": (b"[" * 100_000, "line 1 is not JSON"),
    "nokey.jsonl": (b'{"story": "a"}\n', 'no "text" string'),
    "list.jsonl": (b'["a"]\n', 'no "text" string'),
    "number.jsonl": (b'{"text": 3}\n', 'no "text" string'),
    "surrogate.jsonl": (b'{"text": "a\\ud800"}\n', "surrogate"),
    "truncated.txt.gz": (GZIPPED[:-12], "cannot be read"),
    "not_gzip.txt.gz": (b"plain", "cannot be read"),
    "flipped.txt.gz": (GZIPPED[:20] + b"\0\1" * 9, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_clear_line(name: str, tmp_path: Path):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(XtalkError, match=message) as caught:
        read_documents(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_missing_file_and_empty_folder(tmp_path: Path):
    for source in (tmp_path / "none", str(tmp_path / "none"), "none.txt", "./none"):
        with pytest.raises(XtalkError, match="does not exist"):
            read_documents(source)
    with pytest.raises(XtalkError, match="has no text;"):
        read_documents(tmp_path)
    with pytest.raises(XtalkError, match="no such user"):
        read_documents("~nobody-of-that-name/a.txt")


def test_a_folder_is_read_without_what_holds_no_text(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one story")
    (tmp_path / "b.txt").touch()
    (tmp_path / "._a.txt").write_bytes(b"\xff\x00")  # such as macOS leaves on other systems' disks
    (tmp_path / "c.txt").mkdir()
    assert read_documents(tmp_path) == ["one story"]


def test_hub_dataset_is_streamed(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool):
        asked.append((name, config, split, streaming))
        yield {"text": "one"}
        yield {"text": "two"}
        raise AssertionError("read further than asked for")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert read_documents("someone/stories:small", max_characters=5) == ["one", "two"]
    assert asked == [("someone/stories", "small", "train", True)]


def test_hub_failures_are_one_line(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: Any, **__: Any):
        raise ConnectionError("cannot connect\nlong trace")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(XtalkError, match=r"no file or folder here.*ConnectionError: cannot connect$"):
        read_documents("someone/stories")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [{"story": "one"}])
    with pytest.raises(XtalkError, match=r"the columns \['story'\]"):
        read_documents("someone/stories")


texts_strategy = st.lists(st.text("ab \n", max_size=4), min_size=0, max_size=40)


@given(docs=texts_strategy, held_out=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_split_is_disjoint_complete_and_deterministic(docs: list[str], held_out: float, seed: int):
    words = [tuple(text.split()) for text in docs]
    if len(set(words)) < 2:
        with pytest.raises(XtalkError, match="distinct document"):
            split_documents(docs, held_out, seed)
        return
    train, held = split_documents(docs, held_out, seed)
    train_words, held_words = [tuple(t.split()) for t in train], [tuple(t.split()) for t in held]
    assert not set(train_words) & set(held_words)
    assert sorted(train_words + held_words) == sorted(set(words))
    assert train and held
    assert len(held) - 1 < held_out * len(set(words)) < len(held) + 1
    assert [docs.index(text) for text in train] == sorted(docs.index(text) for text in train)
    again = split_documents(sorted(docs) * 2, held_out, seed)
    assert [{tuple(t.split()) for t in part} for part in again] == [set(train_words), set(held_words)]


def test_split_depends_on_the_seed():
    docs = [f"story {i}" for i in range(50)]
    assert split_documents(docs, 0.3, 0)[1] != split_documents(docs, 0.3, 1)[1]


@pytest.mark.parametrize("held_out", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_a_fraction_out_of_range(held_out: float):
    with pytest.raises(XtalkError, match="held-out fraction"):
        split_documents(["a", "b"], held_out, 0)


def test_without_leaves_no_held_out_document_and_no_duplicate():
    docs = ["a b", "c", "a  b", "d", "c\n", "e"]
    assert without(docs, ["c ", "f"]) == ["a b", "d", "e"]


@pytest.mark.parametrize("name", ["a.txt", "b.txt", "c.jsonl", "d.csv"])
def test_a_small_file_that_unpacks_to_a_document_without_end_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A line, or a document of many lines; the limit is lowered for the test."""
    monkeypatch.setattr("xtalk.data.documents._LONGEST", 1 << 20)
    path = tmp_path / f"{name}.gz"
    start = {"c.jsonl": b'{"text": "', "d.csv": b"text\n"}.get(name, b"")
    path.write_bytes(
        gzip.compress(start + (b"a" * 1023 + b"\n") * 4096 if name == "b.txt" else start + b"a" * (1 << 22))
    )
    assert path.stat().st_size < 1 << 15
    with pytest.raises(XtalkError, match="a line or document of more than 1048576 characters"):
        read_documents(path)

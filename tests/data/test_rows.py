"""Columns of JSON lines, CSV, Parquet and data sets of the hub."""

import gzip
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xtalk
from xtalk.data import read_documents
from xtalk.errors import XtalkError

STORIES = ["One, with a comma.", 'Two "quoted"\nlines; été', "Three"]


def write(path: Path, texts: list[str], column: str) -> Path:
    """Texts in a table of two columns, in the format of the path's suffix."""
    rows = [{"number": str(number), column: text} for number, text in enumerate(texts)]
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        quoted = (text.replace('"', '""') for text in texts)
        lines = [f"number,{column}", *(f'{number},"{text}"' for number, text in enumerate(quoted))]
        content = "\r\n".join(lines).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.csv.gz", "a.parquet"])
def test_a_column_is_read(tmp_path: Path, name: str):
    assert read_documents(write(tmp_path / name, STORIES, "text")) == STORIES
    path = write(tmp_path / name, STORIES, "story")
    assert read_documents(xtalk.TextSource(path, column="story")) == STORIES
    with pytest.raises(XtalkError, match=r'"text"') as caught:
        read_documents(path)
    assert "\n" not in str(caught.value) and "number" in str(caught.value)


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1, max_size=5))
def test_csv_and_parquet_give_back_the_texts(texts: list[str], tmp_path_factory: pytest.TempPathFactory):
    texts = [f"{number} {text}" for number, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("d")
    for name in ("a.csv", "a.parquet"):
        assert read_documents(write(folder / name, texts, "text")) == texts


def test_reading_stops_at_max_characters(tmp_path: Path):
    for name in ("a.csv", "a.parquet"):
        path = write(tmp_path / name, ["12345", "67890", "abcde"], "text")
        assert read_documents(path, max_characters=6) == ["12345", "67890"]


def test_long_values_of_csv(tmp_path: Path):
    long = "word " * 100_000
    assert read_documents(write(tmp_path / "a.csv", [long], "text")) == [long]


def test_a_folder_reads_the_tables_that_have_the_column(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path / "a.csv", ["one"], "text")
    write(tmp_path / "b.parquet", ["two"], "text")
    write(tmp_path / "c.csv", ["three"], "story")
    write(tmp_path / "d.parquet", ["four"], "story")
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    assert read_documents(tmp_path) == ["one", "two"]
    assert "passed over: c.csv, d.parquet, e.parquet" in caplog.text
    assert read_documents(xtalk.TextSource(tmp_path, column="story")) == ["three", "four"]


BAD = {
    "short.csv": (b"number,text\n1\n", "ends before its column 'text'"),
    "empty.parquet": (b"PAR1PAR1", "cannot be read as Parquet"),
    "text.parquet": (b"text\n", "cannot be read as Parquet"),
    "latin.csv": ("text\ncafé long".encode("latin-1"), "not UTF-8"),
    "numbers.jsonl": (b'{"text": [1]}\n', 'no "text" string'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_one_clear_line(tmp_path: Path, name: str):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(XtalkError, match=message) as caught:
        read_documents(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_numbers_in_a_column_are_no_text(tmp_path: Path):
    parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(XtalkError, match=r'a.parquet, row 1 has no "text" string'):
        read_documents(tmp_path / "a.parquet")


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", ["one"], "text")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(XtalkError, match=r"pyarrow is not installed; .*pip install 'xtalk\[datasets\]'"):
        read_documents(path)


def test_a_dataset_with_configuration_split_and_column(monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool):
        asked.append((name, config, split, streaming))
        return iter([{"body": "one", "n": 1}, {"body": "two", "n": 2}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = xtalk.TextSource("someone/stories:small", column="body", split="validation")
    assert read_documents(source) == ["one", "two"]
    assert asked == [("someone/stories", "small", "validation", True)]
    with pytest.raises(XtalkError, match=r"the columns \['body', 'n'\].*--column"):
        read_documents("someone/stories")

"""Files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from xtalk.errors import XtalkError
from xtalk.files import is_disk_full, remove_partial, replacing, write_text


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path):
    with replacing(tmp_path / "new" / "a.png") as partial:
        partial.write_text("new")
        assert partial.suffix == ".png"
        assert not (tmp_path / "new" / "a.png").exists()
    assert (tmp_path / "new" / "a.png").read_text() == "new"
    assert [f.name for f in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as partial:
        partial.write_text("ha")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("operation", ["replace", "fsync"])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch, operation: str):
    path = tmp_path / "a.json"
    path.write_text("old")
    monkeypatch.setattr(os, operation, full_disk)
    with pytest.raises(XtalkError, match="no space left on the disk"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".partial-1-a.json").write_text("ha")
    (tmp_path / "a.json").write_text("whole")
    remove_partial(tmp_path)
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["a.json"]


def test_a_full_disk_is_recognised_through_other_libraries():
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(OSError(errno.EACCES, "no"))

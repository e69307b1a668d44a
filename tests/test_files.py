"""Files are whole or not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xtalk
from xtalk.data import read_documents
from xtalk.errors import XtalkError
from xtalk.files import expanded, is_disk_full, locked, remove_partial, replacing, write_text
from xtalk.runs.config import run_config
from xtalk.runs.presets import preset


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


def test_a_held_folder_names_its_holder_and_is_free_again_afterwards(tmp_path: Path):
    (tmp_path / ".partial-1-a.json").write_text("ha")
    with locked(tmp_path):
        assert not (tmp_path / ".partial-1-a.json").exists()
        with pytest.raises(XtalkError, match=rf"in use by .*process {os.getpid()}\)"), locked(tmp_path):
            pass
    with pytest.raises(RuntimeError, match="work failed"), locked(tmp_path):
        raise RuntimeError("work failed")
    with locked(tmp_path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_system_that_opens_no_folders_writes_files_all_the_same(tmp_path: Path, monkeypatch):
    """Windows."""
    real = os.open

    def opened(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", opened)
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"


def test_locks_need_no_fcntl(tmp_path: Path):
    """Windows has none."""
    code = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from xtalk.errors import XtalkError
from xtalk.files import locked
with locked(Path(sys.argv[1])):
    try:
        with locked(Path(sys.argv[1])):
            print("held twice")
    except XtalkError as error:
        print(error)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "in use by another xtalk (process " in found.stdout
    assert "held twice" not in found.stdout


@pytest.mark.parametrize(
    "read",
    [
        expanded,
        xtalk.load_model,
        xtalk.Crosscoder.load,
        xtalk.Run,
        read_documents,
        lambda name: xtalk.compare(name, name),
        lambda name: xtalk.check(name, name, name),
        lambda name: run_config(preset("quick").plain() | {"model": name}),
        lambda name: run_config(preset("quick").plain() | {"text": name}),
    ],
)
def test_a_text_where_a_name_is_expected_is_one_line(read):
    with pytest.raises(
        XtalkError, match=r"'Once upon .* \(File name too long\); expected the name of"
    ) as seen:
        read("Once upon a time " * 20)
    assert len(str(seen.value)) < 250


def test_a_folder_that_may_not_be_looked_into_is_one_line(monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(XtalkError, match=r"cannot look for 'there/x' \(Permission denied\)"):
        expanded("there/x")


def test_names_with_characters_that_no_name_has(tmp_path: Path):
    for name in ("a\0b", "\ud800"):
        with pytest.raises(XtalkError, match="cannot be read: "):
            xtalk.check(name, name, name)

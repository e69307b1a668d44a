"""What befalls a run folder: crashes, clocks, permissions, damage. Kills: `python -m audit.kills`."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs.local_run import local_config, local_folder

from xtalk import cli
from xtalk.errors import XtalkError
from xtalk.files import LOCK, PARTIAL
from xtalk.runs.folder import RunFolder
from xtalk.runs.run import Run

FAR = (315_532_800, 7_258_118_400)  # 1980 and 2200


def test_a_lock_that_a_crash_left_is_no_obstacle(tmp_path: Path):
    folder = local_folder(tmp_path)
    code = "import os, sys; from pathlib import Path; from xtalk.files import locked\n"
    code += "with locked(Path(sys.argv[1])): os._exit(9)"
    command = [sys.executable, "-c", code, str(folder.path)]
    assert subprocess.run(command, check=False).returncode == 9
    assert {f.name for f in folder.path.iterdir()} >= {LOCK, f"{PARTIAL}holder"}
    with RunFolder.open(folder.path).locked():
        assert (folder.path / f"{PARTIAL}holder").read_text() == str(os.getpid())


def test_clocks_that_jump_change_nothing(tmp_path: Path, monkeypatch):
    """Neither the time of day nor the times of files decide what is up to date."""
    folder = local_folder(tmp_path)
    jumps = iter([FAR[1], FAR[0]] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    Run(folder.path).harvest()
    before = {path: path.read_bytes() for path in folder.path.glob("*.safetensors")}
    for number, path in enumerate(sorted(folder.path.rglob("*"))):
        os.utime(path, (FAR[number % 2],) * 2)
    again = Run(folder.path)
    monkeypatch.setattr("xtalk.runs.pipeline.Pipeline._perform", lambda *_: pytest.fail("done again"))
    again.harvest()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("place", ["parent", "inside"])
def test_a_folder_that_takes_no_files_is_one_line(tmp_path: Path, monkeypatch, capsys, place: str):
    """Root may write anywhere, so the refusal is the system's by proxy."""
    config = local_config(tmp_path)
    out = tmp_path / "out"
    if place == "inside":
        RunFolder.create(out, config)

    def refused(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir" if place == "parent" else "filelock._unix.os.open", refused)
    arguments = ["xtalk", "harvest", "--out", str(out), "--model", config.model, "--text", config.text]
    monkeypatch.setattr(sys, "argv", arguments)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "Permission denied" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["harvest.json", "scaling.safetensors", "loss_metric.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_result_is_noticed_and_made_anew(harvested: RunFolder, name: str, damage: str):
    path = harvested.path / name
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else flipped)
    Run(harvested.path).harvest()
    assert path.read_bytes() == whole


@pytest.fixture(scope="module")
def harvested(tmp_path_factory) -> RunFolder:
    folder = local_folder(tmp_path_factory.mktemp("harvested"))
    Run(folder.path).harvest()
    return folder


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "[]", '{"harvest": 3}'])
def test_a_damaged_record_of_steps_says_what_to_do(harvested: RunFolder, content: str):
    path = harvested.path / "steps.json"
    whole = path.read_text()
    path.write_text(content)
    with pytest.raises(XtalkError, match=r"steps.json .*remove it") as caught:
        Run(harvested.path).harvest()
    assert "\n" not in str(caught.value)
    path.write_text(whole)


def test_a_record_of_steps_that_names_files_elsewhere_is_refused(harvested: RunFolder):
    path = harvested.path / "steps.json"
    whole = path.read_text()
    path.write_text(whole.replace("scaling.safetensors", "../../scaling.safetensors"))
    with pytest.raises(XtalkError, match="leads out of the run folder"):
        Run(harvested.path).harvest()
    path.write_text(whole)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path: Path, monkeypatch, capsys):
    folder = local_folder(tmp_path)
    monkeypatch.setattr(sys, "argv", ["xtalk", "harvest", "--out", str(folder.path)])
    real, calls = os.fsync, iter(range(1000))

    def full(descriptor: int) -> None:
        if next(calls) == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2
    assert said[-1].startswith("xtalk: no space left on the disk of ")
    assert not [path for path in folder.path.rglob("*") if path.name.startswith(PARTIAL)]
    Run(folder.path).harvest()
    assert (folder.path / "harvest.json").exists()

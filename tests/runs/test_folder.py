"""Run folders: one configuration, one user at a time, nothing half-written."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from reference.tiny_models import save_tiny
from runs.local_run import local_folder, write_text

from xtalk.errors import XtalkError
from xtalk.runs.config import changed
from xtalk.runs.folder import RunFolder
from xtalk.runs.presets import preset
from xtalk.runs.run import Run

HOLDER = """
import sys
from xtalk.runs.folder import RunFolder
with RunFolder.open(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", preset("quick"))


def test_a_folder_is_opened_again_with_its_configuration(folder: RunFolder):
    assert RunFolder.open(folder.path).config == folder.config
    assert RunFolder.create(folder.path, preset("quick")).config == folder.config


def test_a_folder_in_which_nothing_is_complete_takes_another_configuration(folder: RunFolder):
    assert RunFolder.create(folder.path, preset("quick", seed=1)).config.seed == 1
    assert RunFolder.open(folder.path).config == preset("quick", seed=1)


def test_a_folder_of_another_layout_is_refused(folder: RunFolder):
    path = folder.path / "config.yaml"
    path.write_text(path.read_text().replace("layout: 2\n", ""))
    with pytest.raises(
        XtalkError, match=r"has layout 1, of another version of xtalk; this one reads layout 2"
    ):
        RunFolder.open(folder.path)


def test_another_configuration_is_refused_by_its_differences(folder: RunFolder):
    folder.complete("harvest", [], [], 1.0)
    before = (folder.path / "config.yaml").read_bytes()
    with pytest.raises(XtalkError, match=r"another configuration \(seed was 0, is now 1\).*another --out"):
        RunFolder.create(folder.path, preset("quick", seed=1))
    assert (folder.path / "config.yaml").read_bytes() == before


def test_a_changed_config_is_refused(folder: RunFolder):
    path = folder.path / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(XtalkError, match="was changed after the run began"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize("content", ["", "{", "a: 1", "layout: 2\nfingerprint: x\nconfig: 3", "- 1", "\x00"])
def test_a_broken_config_is_refused_in_one_line(folder: RunFolder, content: str):
    (folder.path / "config.yaml").write_text(content)
    with pytest.raises(XtalkError, match="cannot be read") as caught:
        RunFolder.open(folder.path)
    assert "\n" not in str(caught.value)


def test_config_is_never_unpickled(folder: RunFolder, tmp_path: Path):
    (folder.path / "config.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(XtalkError, match="cannot be read"):
        RunFolder.open(folder.path)
    assert not (tmp_path / "made").exists()


def test_folders_with_other_files_and_files_are_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(XtalkError, match="holds other files"):
        RunFolder.create(tmp_path, preset("quick"))
    with pytest.raises(XtalkError, match="is a file"):
        RunFolder.create(tmp_path / "notes.txt", preset("quick"))
    with pytest.raises(XtalkError, match="cannot make the folder"):
        RunFolder.create(tmp_path / "notes.txt" / "run", preset("quick"))
    with pytest.raises(XtalkError, match="is no run folder"):
        RunFolder.open(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_killed_create_left_is_no_obstacle(tmp_path: Path):
    (tmp_path / ".partial-1-config.yaml").write_text("ha")
    (tmp_path / ".lock").write_text("1")
    RunFolder.create(tmp_path, preset("quick"))
    assert not (tmp_path / ".partial-1-config.yaml").exists()


def test_a_second_process_is_refused_until_the_first_ends(folder: RunFolder):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        holder = rf"in use by another xtalk \(process {other.pid}\)"
        with pytest.raises(XtalkError, match=holder), folder.locked():
            pass
        with pytest.raises(XtalkError, match="in use"):
            RunFolder.create(folder.path, folder.config)
        other.kill()  # the lock goes with the process, however it ends
    with folder.locked():
        pass


def test_locks_nest(folder: RunFolder):
    with folder.locked():
        with folder.locked():
            pass
        with pytest.raises(XtalkError, match="in use"), RunFolder.open(folder.path).locked():
            pass
    with RunFolder.open(folder.path).locked():
        pass


def test_nothing_is_written_outside_the_folder(folder: RunFolder, tmp_path: Path):
    for name in ("../a.json", str(tmp_path / "a.json"), "deep/../../a.json"):
        with pytest.raises(XtalkError, match="leads out of the run folder"):
            folder.write_json(name, {})
    (folder.path / "link").symlink_to(tmp_path)
    with pytest.raises(XtalkError, match="leads out of the run folder"):
        folder.write_json("link/a.json", {})
    assert not (tmp_path / "a.json").exists()


def test_json_is_written_and_read_and_nan_refused(folder: RunFolder):
    folder.write_json("deep/a.json", {"x": [1, 2.5]})
    assert folder.read_json("deep/a.json") == {"x": [1, 2.5]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("deep/a.json", {"x": float("nan")})
    assert folder.read_json("deep/a.json") == {"x": [1, 2.5]}
    (folder.path / "deep" / "a.json").write_text("{")
    for name in ("deep/a.json", "none.json"):
        with pytest.raises(XtalkError, match="cannot be read"):
            folder.read_json(name)


def test_the_log_has_a_line_for_each_event(folder: RunFolder):
    folder.log("thing", loss=1.5)
    created, thing = map(json.loads, (folder.path / "log.jsonl").read_text().splitlines())
    assert created["event"] == "created"
    assert (thing["event"], thing["loss"]) == ("thing", 1.5)


def test_a_full_disk_leaves_no_half_line_in_the_log(folder: RunFolder, monkeypatch):
    before = (folder.path / "log.jsonl").read_bytes()

    class NearlyFull(io.FileIO):
        def write(self, data):
            super().write(data[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: NearlyFull(path, "a"))
    with pytest.raises(XtalkError, match="no space left"):
        folder.log("thing")
    monkeypatch.undo()
    assert (folder.path / "log.jsonl").read_bytes() == before


def test_a_step_is_complete_while_its_files_stay_as_they_were(folder: RunFolder):
    folder.write_json("in.json", 1)
    folder.write_json("out.json", 2)
    assert not folder.is_complete("train", ["in.json"])
    folder.complete("train", ["in.json"], ["out.json"], 1.5)
    assert folder.is_complete("train", ["in.json"])
    assert RunFolder.open(folder.path).is_complete("train", ["in.json"])
    assert folder.outputs("train") == ["out.json"]
    folder.complete("train/a", ["in.json"], ["out.json"], 1.0)
    folder.complete("harvest", [], ["out.json"], 0.25)
    assert folder.seconds(but=["evaluate"]) == 2.75
    assert folder.seconds(but=["train"]) == 1.25
    folder.write_json("figures/a/b.json", 1)
    assert folder.files(["in.json", "figures/"]) == ["in.json", "figures/a/b.json"]
    assert not folder.is_complete("train", [])
    for name in ("in.json", "out.json"):
        content = folder.read_json(name)
        folder.write_json(name, 3)
        assert not folder.is_complete("train", ["in.json"])
        folder.write_json(name, content)
    (folder.path / "out.json").unlink()
    assert not folder.is_complete("train", ["in.json"])
    with pytest.raises(ValueError, match=r"did not write out\.json"):
        folder.complete("train", [], ["out.json"], 0.0)


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"train": 1}', '{"train": {"inputs": {}}}', '{"tra'])
def test_a_record_of_steps_that_is_none_is_one_line(folder: RunFolder, content: str):
    (folder.path / "steps.json").write_text(content)
    for ask in (lambda: folder.is_complete("train", []), lambda: folder.complete("train", [], [], 1.0)):
        with pytest.raises(XtalkError, match=r"steps\.json") as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert (folder.path / "steps.json").read_text() == content


def test_a_model_that_moved_is_accepted_by_its_hash(tmp_path: Path):
    folder = local_folder(tmp_path / "old", crosscoders=[{"name": "unpenalised", "penalties": {}}])
    Run(folder.path).harvest()
    renamed, another = tmp_path / "renamed", tmp_path / "another"
    Path(folder.config.model).rename(renamed)
    with pytest.raises(XtalkError, match="old/model"):
        Run(folder.path).train()
    run = Run(folder.path, changed(folder.config, model=str(renamed)))
    assert RunFolder.open(folder.path).config.model == str(renamed)
    run.train()
    assert folder.outputs("train/unpenalised")
    save_tiny(another, seed=1)
    with pytest.raises(XtalkError, match="the model has changed since"):
        Run(folder.path, changed(folder.config, model=str(another))).evaluate()


def test_a_held_out_text_that_moved_is_accepted_by_its_hash(tmp_path: Path):
    held, moved, another = (tmp_path / f"{name}.jsonl" for name in ("held", "moved", "another"))
    write_text(held, seed=5)
    write_text(another, seed=6)
    specs = [{"name": "unpenalised", "penalties": {}}]
    folder = local_folder(tmp_path / "run", crosscoders=specs, held_out_text=str(held))
    Run(folder.path).harvest()
    held.rename(moved)
    run = Run(folder.path, changed(folder.config, held_out_text=str(moved)))
    run.train()
    assert folder.outputs("train/unpenalised")
    run = Run(folder.path, changed(folder.config, held_out_text=str(another)))
    with pytest.raises(XtalkError, match="the held-out text has changed since"):
        run.evaluate()

"""Trackers get what log.jsonl gets, and one that fails stops nothing."""

import json
import logging
from pathlib import Path

import pytest
from runs.local_run import local_config

from xtalk.errors import XtalkError
from xtalk.runs import tracking
from xtalk.runs.run import Run


@pytest.fixture
def trained(tmp_path: Path, monkeypatch):
    """Trains a tiny run with trackers; gives its folder and the records that its log has."""

    def train(*trackers: str) -> tuple[Path, list[dict]]:
        monkeypatch.setattr("xtalk.training.train.LOG_EVERY", 2)
        run = Run(tmp_path / "run", local_config(tmp_path), device="cpu", trackers=trackers)
        run.train()
        lines = map(json.loads, run.folder.file("log.jsonl").read_text().splitlines())
        return run.folder.path, [line for line in lines if line["event"] == "train"]

    return train


class Recorder:
    """A tracker that keeps what it gets, and fails on request."""

    def __init__(self, kept: list, fails: str = "") -> None:
        self.kept, self.fails = kept, fails

    def log(self, step, numbers):
        if self.fails == "log":
            raise ConnectionError("the network is gone")
        self.kept.append((step, dict(numbers)))

    def close(self):
        self.kept.append("closed")
        if self.fails == "close":
            raise ConnectionError("the network is gone")


def test_a_tracker_gets_every_record(trained, monkeypatch):
    kept: dict[str, list] = {}
    monkeypatch.setitem(
        tracking.TRACKERS, "json", lambda folder, name, config: Recorder(kept.setdefault(name, []))
    )
    folder, records = trained("json")
    assert folder.name == "run" and len(records) > 2
    for name, seen in kept.items():
        own = [record for record in records if record["crosscoder"] == name]
        assert [step for step, _ in seen[:-1]] == [record["step"] for record in own] and seen[-1] == "closed"
        assert seen[0][1] == {
            key: own[0][key] for key in own[0] if key not in ("time", "event", "crosscoder", "step")
        }


@pytest.mark.parametrize("fails", ["open", "log", "close"])
def test_a_tracker_that_fails_is_given_up_with_a_warning(fails: str, trained, monkeypatch, caplog):
    kept: list = []

    def opened(folder, name, config):
        if fails == "open":
            raise ConnectionError("the network is gone")
        return Recorder(kept, fails)

    monkeypatch.setitem(tracking.TRACKERS, "json", opened)
    with caplog.at_level(logging.WARNING, "xtalk"):
        folder, records = trained("json")
    assert list(folder.glob("crosscoders/*/sae_weights.safetensors")) and records
    assert "json failed (the network is gone); training goes on without it" in caplog.text
    assert ("closed" in kept) == (fails == "close")


def test_an_unknown_tracker_and_one_that_is_not_installed(trained, monkeypatch):
    with pytest.raises(XtalkError, match=r"no tracker 'mlflow'; expected one of wandb, trackio, tensorboard"):
        trained("mlflow")

    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(tracking, "import_module", missing)
    with pytest.raises(XtalkError, match="pip install wandb"):
        trained("wandb")


def test_tensorboard_writes_into_the_run_folder(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, records = trained("tensorboard")
    name = records[0]["crosscoder"]
    events = EventAccumulator(str(folder / "tensorboard" / name)).Reload()
    own = [record for record in records if record["crosscoder"] == name]
    found = [(event.step, event.value) for event in events.Scalars("recon")]
    assert found == [(record["step"], pytest.approx(record["recon"])) for record in own]


def test_weights_and_biases_offline(trained, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder, records = trained("wandb")
    runs = list(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(runs) == len({record["crosscoder"] for record in records})


def test_trackio_on_this_machine(trained, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which trackio reads as it is imported
    folder, records = trained("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    for name in {record["crosscoder"] for record in records}:
        own = [(record["step"], record["recon"]) for record in records if record["crosscoder"] == name]
        logs = SQLiteStorage.get_logs("xtalk", f"{folder.name}/{name}")
        assert [(log["step"], log["recon"]) for log in logs if "recon" in log] == own
    assert list((tmp_path / "trackio").glob("xtalk*.db"))
    assert not capsys.readouterr().out  # which is the command's

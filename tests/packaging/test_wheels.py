"""The two wheels, as users install them: the checker alone without torch, xtalk without its source tree."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from runs.local_run import local_config

from xtalk.proofs.config import DigitsConfig, ProveConfig
from xtalk.proofs.prove import prove

ROOT = Path(__file__).parents[2]
CHECKER = ROOT / "packages" / "xtalk-check"
FIXTURE = ROOT / "tests" / "xtalk_check" / "fixtures" / "max-4-of-64"
# Nothing of the source tree or of this environment; compiled loops and models go where they always go.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, env=CLEAN, capture_output=True, text=True)


def wheel(project: Path, folder: Path) -> Path:
    """The project's wheel, built from a copy so that nothing is left in the source tree."""
    source = folder / "source"
    shutil.copytree(
        project / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, source)
    for other in ("studies", "benchmarks"):  # what must not be found
        if (project / other).exists():
            shutil.copytree(project / other, source / other)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder)
    built = run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


class Environment:
    """A new virtual environment that sees no package of this one."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        self.packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))

    def install(self, *wheels: Path) -> None:
        """Install wheels with no dependencies, from no index."""
        options = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
        pip = (sys.executable, "-m", "pip", "--python", self.bin / "python", "install", *options)
        installed = run(*pip, *wheels, cwd=self.bin)
        assert installed.returncode == 0, installed.stderr

    def copy(self, name: str) -> None:
        """Install a distribution as its wheel did here: the files that it recorded, and no others."""
        for file in distribution(name).files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (self.packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), self.packages / file)


def arguments(stem: Path) -> list[str]:
    return [f"{stem}.json", "--spec", f"{stem}.spec.json", "--weights", f"{stem}.weights"]


@pytest.fixture(scope="module")
def checker_wheel(tmp_path_factory) -> Path:
    return wheel(CHECKER, tmp_path_factory.mktemp("checker-wheel"))


def test_the_checker_alone_checks_certificates_without_torch(checker_wheel, tmp_path):
    environment = Environment(tmp_path / "empty")
    environment.install(checker_wheel)
    environment.copy("python-flint")
    listed = run(environment.bin / "python", "-c", "import torch", cwd=tmp_path)
    assert listed.returncode == 1 and "No module named 'torch'" in listed.stderr
    assert run(environment.bin / "python", "-c", "import xtalk", cwd=tmp_path).returncode == 1

    made = tmp_path / "made"
    tiny = ProveConfig(vocabulary=16, n=3, classes=4, dictionary=4, post_hoc=True, network_steps=100)
    rows = [prove(config, made) for config in (tiny, DigitsConfig(entries=2))]
    stems = [FIXTURE, *(made / row.path.removesuffix(".json") for row in rows)]
    for stem in stems:
        accepted = run(environment.bin / "xtalk-check", *arguments(stem), "--json", cwd=tmp_path)
        assert accepted.returncode == 0, accepted.stdout + accepted.stderr
        verdict = json.loads(accepted.stdout)
        assert verdict["claim"] == json.loads(Path(f"{stem}.json").read_text())["claim"]

    tampered = json.loads(Path(f"{stems[1]}.json").read_text())
    tampered["claim"]["certified"] = tampered["claim"]["total"] + 1
    Path(f"{stems[1]}.json").write_text(json.dumps(tampered))
    rejected = run(environment.bin / "python", "-m", "xtalk_check", *arguments(stems[1]), cwd=tmp_path)
    assert rejected.returncode == 1 and rejected.stdout.startswith("rejected: ")
    missing = run(environment.bin / "xtalk-check", *arguments(tmp_path / "none"), cwd=tmp_path)
    assert missing.returncode == 2 and missing.stdout.startswith("not a certificate: ")


@pytest.mark.parametrize("project", [CHECKER, ROOT], ids=["xtalk-check", "xtalk"])
def test_a_wheel_has_the_same_bytes_when_built_again(project: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(CLEAN, "SOURCE_DATE_EPOCH", "1700000000")
    built: list[bytes] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        built.append(wheel(project, tmp_path / name).read_bytes())
    assert built[0] == built[1]


def test_the_checkers_wheel_asks_for_python_flint_alone(checker_wheel):
    with zipfile.ZipFile(checker_wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert len(required) == 1 and required[0].startswith("Requires-Dist: python-flint")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"xtalk_check"}
    assert "## Write a specification by hand" in metadata  # the README comes along


RUN = """
import json, sys
from pathlib import Path
import xtalk
from xtalk.data import read_documents
from xtalk.models.language_model import load_model
from xtalk.proofs.t1.digits import load_digits_network
from xtalk.runs.config import run_config
assert Path(xtalk.__file__).is_relative_to(sys.prefix), xtalk.__file__
assert load_model("embedded").n_blocks == 4 and read_documents() and load_digits_network()
config = run_config(json.loads(Path("config.json").read_text()))
xtalk.Run("run", config).run()
"""


def test_xtalk_runs_from_its_wheel_in_another_folder(checker_wheel, tmp_path):
    built = wheel(ROOT, tmp_path)
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert "xtalk" in tops and not tops & {"studies", "benchmarks", "tests", "audit", "xtalk_check", "src"}

    environment = Environment(tmp_path / "environment")
    environment.install(built, checker_wheel)
    # What xtalk depends on is this environment's: a line of a .pth makes its packages importable, and does
    # not follow the .pth files there, by which editable installs are found.
    (environment.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = local_config(elsewhere)
    (elsewhere / "config.json").write_text(json.dumps(config.plain()))
    ran = run(environment.bin / "python", "-c", RUN, cwd=elsewhere)
    assert ran.returncode == 0, ran.stderr[-2000:]
    report = elsewhere / "run" / "report.html"
    assert "<style" in report.read_text() and json.loads((elsewhere / "run" / "metrics.json").read_text())
    helped = run(environment.bin / "xtalk", "prove", "--help", cwd=elsewhere)
    assert helped.returncode == 0 and "T1-language" in helped.stdout

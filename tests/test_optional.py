"""What is imported is declared, what is declared is imported, and a package that is missing is named."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from xtalk.errors import XtalkError
from xtalk.optional import EXTRAS, extras_named

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "xtalk-check": "xtalk_check"}
PROGRAM = """
import sys
for package in {missing!r}:
    sys.modules[package] = None
from xtalk.cli import main
sys.argv = ["xtalk", "run", "--out", {out!r}]
main()
"""


def packages(requirements: list[str]) -> set[str]:
    """What requirements are imported as."""
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
    return {IMPORTED_AS.get(name, name) for name in names}


def imported_by_sources() -> set[str]:
    """All packages that some module of xtalk imports, but for the standard library's."""
    found: set[str] = set()
    for file in (ROOT / "src" / "xtalk").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"xtalk", "benchmarks"}


def test_dependencies_are_what_is_imported():
    optional = PROJECT["optional-dependencies"]
    declared = packages(
        [*PROJECT["dependencies"], *optional["run"], *optional["datasets"], *optional["judge"]]
    )
    assert imported_by_sources() == declared


def test_extras_are_those_of_the_project():
    optional = PROJECT["optional-dependencies"]
    assert optional["all"] == ["xtalk[run,datasets,gguf,judge,track]"]
    for extra in ("run", "datasets", "gguf", "judge", "track"):
        assert packages(optional[extra]) == {package for package, its in EXTRAS.items() if its == extra}


def test_measures_and_training_need_no_extra():
    homes = [
        "activations",
        "crosscoder",
        "evaluation",
        "interactions",
        "reading",
        "training",
        "models.language_model",
    ]
    blocked = "; ".join(
        f"sys.modules[{name!r}] = None" for name in ("sklearn", "matplotlib", "datasets", "openai")
    )
    imports = "; ".join(f"import xtalk.{home}" for home in homes)
    subprocess.run([sys.executable, "-c", f"import sys; {blocked}; {imports}"], check=True)


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib"])
def test_a_run_that_lacks_a_package_says_so_before_it_starts(tmp_path: Path, missing: str):
    program = PROGRAM.format(missing=[missing], out=str(tmp_path / "run"))
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr == (
        f"xtalk: {missing} is not installed; install what xtalk needs for this: pip install 'xtalk[run]'\n"
    )
    assert {file.name for file in (tmp_path / "run").glob("*")} <= {"config.yaml", "log.jsonl", ".lock"}


def test_other_modules_that_are_missing_are_no_extras():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), extras_named():
        import no_such_module  # noqa: F401  # pyright: ignore[reportMissingImports]
    with pytest.raises(XtalkError, match=r"pip install 'xtalk\[judge\]'"), extras_named():
        raise ModuleNotFoundError("no", name="openai.types")

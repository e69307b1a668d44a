"""A test that is skipped where it was not to be fails the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = """
import pytest

def test_that_runs():
    pass

def test_that_is_skipped():
    pytest.skip("no browser")
"""


@pytest.mark.parametrize(
    ("expected", "code", "workers"),
    [
        (None, 0, 0),
        ("test_a.py::test_that_runs", 1, 0),
        ("", 1, 1),
        ("x test_a.py::test_that_is_skipped", 0, 0),
    ],
)
def test_skips_that_are_not_expected_fail_the_run(tmp_path: Path, expected, code: int, workers: int):
    (tmp_path / "conftest.py").write_text("from skips import *")
    (tmp_path / "test_a.py").write_text(SKIPPED)
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment.pop("XTALK_EXPECTED_SKIPS", None)
    if expected is not None:
        environment["XTALK_EXPECTED_SKIPS"] = expected
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--rootdir", ".", "test_a.py"]
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == code, found.stdout
    assert ("SKIPPED BUT NOT IN" in found.stdout) == bool(code)

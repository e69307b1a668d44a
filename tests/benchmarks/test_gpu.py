"""The script for a GPU runs, at tiny sizes on the CPU, and leaves its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def test_a_dry_run_leaves_every_part(tmp_path: Path):
    environment = os.environ | {"OUT": str(tmp_path), "PYTHON": sys.executable}
    found = subprocess.run(
        [SCRIPT, "--dry-run"], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert figures["device"] == "cpu"
    for part in ("products", "penalty", "steps"):
        assert all(row["apart"] < 1e-3 for row in figures[part]), part
    assert figures["harvest"][0]["stream"]["seconds"] > 0
    assert [one["name"] for one in figures["training"][0]["crosscoders"]] == ["unpenalised", "sparse"]
    assert 'failures="0"' in (tmp_path / "tests.xml").read_text()

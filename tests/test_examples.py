"""Every script of examples/ runs, at tiny sizes, in a folder of its own."""

import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import xtalk
from xtalk.crosscoder.conversion import convert
from xtalk.crosscoder.formats.registry import read_folder

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    """Runs a script as a reader would, and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xtalk.training.config._CALIBRATION_TOKENS", 1024)
    monkeypatch.setattr("xtalk.training.quick._SCALING_TOKENS", 1024)

    def script(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def test_own_tensors(run):
    said = run("own_tensors.py")
    lost, bound = (float(part.split()[1]) for part in said.splitlines()[1].split(","))
    assert 0 < lost < bound


def test_train(run, tmp_path: Path):
    said = run("train.py", "--latents", "32", "--steps", "3")
    assert [line.split()[0] for line in said.splitlines()] == ["crosscoder", "plain", "sparse"]
    assert (tmp_path / "crosscoder-sparse" / "sae_weights.safetensors").exists()


def test_a_peers_dictionary(run, tmp_path: Path):
    cc = xtalk.train("embedded", "embedded", hookpoints=["blocks.1.ln2"], d_sae=32, k=4, steps=3)
    cc.save(tmp_path / "own")
    convert(read_folder(tmp_path / "own"), tmp_path / "sae", "saelens", lossy=True)
    said = run("peers_dictionary.py", "sae")
    assert "format of SAELens" in said and " +- " in said and "keep_1" in said


def test_certificate(run):
    said = run("certificate.py", "--vocabulary", "8", "--steps", "40").splitlines()
    assert said[0].startswith("accepted") and said[1].startswith("rejected")


def test_the_notebook_runs_shows_its_progress_and_its_figure(tmp_path: Path):
    """With fewer steps and tokens, in a kernel of its own."""
    notebook = nbformat.read(EXAMPLES / "first_figure.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("steps=300", "steps=5").replace("4096", "1024")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = [set(output.get("data", ())) for output in shown]
    assert any("image/png" in kind for kind in kinds)
    bars = [
        output.data["text/html"] for output, kind in zip(shown, kinds, strict=True) if "text/html" in kind
    ]
    assert any(bar.startswith('<div>train <progress value="5" max="5">') for bar in bars)
    assert "keep_1" in "".join(output.get("text", "") for output in shown)


def test_the_notebook_has_outputs_of_todays_cells():
    notebook = nbformat.read(EXAMPLES / "first_figure.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) >= 4


def test_the_page_names_every_script():
    named = (EXAMPLES / "README.md").read_text()
    assert all(f"`{script.name}`" in named for script in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")])

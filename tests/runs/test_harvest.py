"""What a harvest refuses or drops before anything is trained."""

import logging

import pytest
from reference.tiny_models import BLOCKS
from runs.local_run import local_config, local_folder, write_text
from safetensors.torch import load_file, save_file

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import paper_hookpoints
from xtalk.runs.run import Run

SILENT = "blocks.1.ln2"


def silence(folder) -> None:
    """Make the MLP of block 1 write nothing."""
    local_config(folder)
    file = folder / "model/model.safetensors"
    tensors = load_file(file)
    for name in ("weight", "bias"):
        tensors[f"transformer.h.1.mlp.c_proj.{name}"].zero_()
    save_file(tensors, file, {"format": "pt"})


def test_an_mlp_that_writes_nothing_is_refused_with_the_option(tmp_path):
    silence(tmp_path)
    with pytest.raises(XtalkError, match=rf"MLP of block 1 .*--hookpoints.* without {SILENT}"):
        Run(local_folder(tmp_path).path, device="cpu").harvest()
    points = [name for name in map(str, paper_hookpoints(BLOCKS)) if name != SILENT]
    folder = local_folder(tmp_path / "without", hookpoints=points, model=str(tmp_path / "model"))
    Run(folder.path, device="cpu").harvest()
    hooked = {str(block) for block in range(BLOCKS)} - {"1"}  # of the others no metric is measured
    assert set(load_file(folder.file("loss_metric.safetensors"))) == hooked


def test_copies_in_a_held_out_text_count_once(tmp_path, caplog):
    write_text(tmp_path / "held.jsonl", 12, seed=1)
    lines = (tmp_path / "held.jsonl").read_text().splitlines()
    harvested = []
    for name, held in (("once", lines), ("five times", lines * 5)):
        (tmp_path / "held.jsonl").write_text("\n".join(held))
        folder = local_folder(tmp_path / name, held_out_text=str(tmp_path / "held.jsonl"))
        with caplog.at_level(logging.WARNING, "xtalk"):
            Run(folder.path, device="cpu").harvest()
        harvested.append(folder.read_json("harvest.json"))
    assert harvested[0]["held_out_hash"] == harvested[1]["held_out_hash"]
    assert harvested[1]["held_out_documents"] == 12
    assert caplog.text.count("48 documents are copies of others") == 1
    (tmp_path / "held.jsonl").write_text("\n".join(lines[:1] * 8))
    with pytest.raises(XtalkError, match="document"):
        folder = local_folder(tmp_path / "one", held_out_text=str(tmp_path / "held.jsonl"))
        Run(folder.path, device="cpu").harvest()

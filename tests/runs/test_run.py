"""Whole runs on a tiny model: what they leave, and that they go on after anything."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.tiny_models import BLOCKS
from runs.local_run import local_folder

from xtalk.crosscoder.saving import read_provenance
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.runs.folder import RunFolder
from xtalk.runs.presets import preset
from xtalk.runs.run import Run
from xtalk.runs.workbench import Workbench

NAMES = ["unpenalised", "paper-300", "sparse"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    folder = local_folder(tmp_path_factory.mktemp("finished"))
    Run(folder.path).run()
    return folder


def test_a_run_leaves_everything(finished: RunFolder):
    for name in ("metrics.json", "report_data.json", "report.html", "config.yaml", "log.jsonl"):
        assert finished.file(name).stat().st_size > 0
    for name in NAMES:
        assert {f.name for f in finished.file(f"crosscoders/{name}").iterdir()} >= {
            "cfg.json",
            "sae_weights.safetensors",
        }
    assert any(f.suffix == ".svg" for f in finished.file("figures").iterdir())
    assert not any(finished.file("checkpoints").iterdir())
    assert not list(finished.path.rglob(".partial-*"))


def test_metrics_have_the_promised_keys(finished: RunFolder):
    metrics = finished.read_json("metrics.json")
    assert metrics["schema"] == "xtalk.metrics/1"
    assert metrics["model"]["blocks"] == BLOCKS
    assert metrics["wall_seconds"] > 0
    assert math.isfinite(metrics["model"]["ce"])
    assert [c["name"] for c in metrics["crosscoders"]] == NAMES
    assert metrics["crosscoders"][0]["penalties"] == {}
    promised = "name penalties recon fvu l0 dead dominant_share tokens_per_second fidelity"
    row_promised = (
        "block resid_mid baseline full keep_1 keep_2 drop_largest keep_random nmse_full nmse_keep_1 ci95"
    )
    for crosscoder in metrics["crosscoders"]:
        assert set(promised.split()) <= crosscoder.keys()
        rows = {(r["block"], r["resid_mid"], r["baseline"]): r for r in crosscoder["fidelity"]}
        assert len(rows) == BLOCKS * 2 * 2 + 2
        at_once = {("all", "model", "mean"), ("all_with_0", "model", "mean")}
        assert at_once <= rows.keys()
        for row in rows.values():
            assert set(row_promised.split()) <= row.keys()
            assert len(row["ci95"]["keep_1"]) == 2


def test_metrics_have_clusters_and_dormant_neurons(finished: RunFolder):
    metrics = finished.read_json("metrics.json")
    clusters, dormant = metrics["clusters"], metrics["dormant"]
    assert {"method", "count", "judged", "accuracy", "accuracy_matched", "stability"} <= clusters.keys()
    assert clusters["crosscoder"] == NAMES[-1]
    assert clusters["count"] == len(finished.read_json("clusters.json")["clusters"])
    assert {"neurons", "woken_by_trigger", "associated_clusters"} <= dormant.keys()
    assert 'href="clusters.html"' in finished.file("report.html").read_text()
    assert finished.file("clusters.html").stat().st_size > 0


def test_interactions_add_up_and_name_the_strongest(finished: RunFolder):
    weights = finished.read_json("crosscoders/sparse/cfg.json")["sae_weights_sha256"]
    matrix = PairMatrix.load(finished.file("interactions/sparse.mlp.safetensors"), weights)
    record = finished.read_json("interactions/sparse.json")
    blocks = [matrix.interactions(f"blocks.{block}").toarray() for block in range(BLOCKS)]
    np.testing.assert_allclose(matrix.interactions().toarray(), sum(blocks))
    rows, columns = (sum(b.sum(axis) for b in blocks) for axis in (1, 0))
    assert matrix.kept() == pytest.approx(rows.sum() / matrix.total())
    assert (matrix.row_totals() >= rows * (1 - 1e-9)).all()
    assert (matrix.column_totals() >= columns * (1 - 1e-9)).all()
    shares = torch.from_numpy(matrix.row_totals() + matrix.column_totals()) / (2 * matrix.total())
    assert sum(shares.tolist()) == pytest.approx(1)
    strongest = shares.topk(len(record["features"]))
    assert [f["latent"] for f in record["features"]] == strongest.indices.tolist()
    assert [f["interaction_share"] for f in record["features"]] == pytest.approx(strongest.values.tolist())


def test_crosscoders_carry_where_they_come_from(finished: RunFolder):
    provenance = read_provenance(finished.file("crosscoders/sparse"))
    harvested = finished.read_json("harvest.json")
    assert provenance.text_hash == harvested["text_hash"]
    assert provenance.model_weights_hash == harvested["weights_hash"]
    [sparse] = [spec for spec in finished.config.crosscoders if spec.name == "sparse"]
    assert provenance.penalties == sparse.penalties != {}
    training = finished.config.training
    assert provenance.training_tokens == training.steps * training.batch_tokens


def test_a_finished_run_does_nothing_again(finished: RunFolder, monkeypatch):
    def stamps():
        return {f: f.stat().st_mtime_ns for f in finished.path.rglob("*") if f.name not in (".lock",)}

    monkeypatch.setattr(Workbench, "model", None)
    before = stamps()
    Run(finished.path).run()
    assert stamps() == before


def test_other_clusters_reach_metrics_and_pages(finished: RunFolder, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    Run(folder.path).cluster(method="louvain")
    Run(folder.path).run()
    assert folder.read_json("metrics.json")["clusters"]["method"] == "louvain"
    assert "louvain" in folder.file("report.html").read_text().lower()


def test_hookpoints_are_named_once(tmp_path):
    twice = local_folder(tmp_path, hookpoints=["blocks.0.ln2", "blocks.0.mlp.hook_in"])
    with pytest.raises(XtalkError, match=r"name blocks\.0\.ln2 more than once"):
        Run(twice.path).harvest()


def test_a_run_killed_in_training_ends_as_if_it_never_was(finished: RunFolder, tmp_path):
    folder = local_folder(tmp_path)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "train paper-300" and done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(folder.path, progress=interrupt).run()
    assert folder.file("checkpoints/paper-300").is_dir()

    firsts: dict[str, int] = {}
    Run(folder.path, progress=lambda what, done, total: firsts.setdefault(what, done)).run()
    assert "train unpenalised" not in firsts  # it was complete
    assert firsts["train paper-300"] == 11  # after the checkpoint of step 10
    assert firsts["train sparse"] == 1
    for name in NAMES:
        weights = f"crosscoders/{name}/sae_weights.safetensors"
        assert folder.file(weights).read_bytes() == finished.file(weights).read_bytes()
    one, other = (f.read_json("metrics.json")["crosscoders"] for f in (folder, finished))
    for crosscoder in one + other:
        del crosscoder["tokens_per_second"]
    assert one == other


def test_a_missing_crosscoder_alone_is_made_again(finished: RunFolder, tmp_path):
    folder = local_folder(tmp_path)
    Run(folder.path).harvest()
    Run(folder.path).train()
    stamps = {n: folder.file(f"crosscoders/{n}/cfg.json").stat().st_mtime_ns for n in NAMES}
    folder.file("crosscoders/sparse/sae_weights.safetensors").unlink()
    Run(folder.path).interact(crosscoders=["unpenalised"])
    assert not folder.file("crosscoders/sparse/sae_weights.safetensors").exists()
    Run(folder.path).interact()
    changed = [n for n in NAMES if folder.file(f"crosscoders/{n}/cfg.json").stat().st_mtime_ns != stamps[n]]
    assert changed == ["sparse"]


def test_the_paper_preset_runs_on_a_local_model(tmp_path: Path):
    paper = preset("paper")
    specs = [spec.model_dump() for spec in paper.crosscoders]
    changes = {"harvest": {"dtype": paper.harvest.dtype}, "training": {"steps": 3}}
    folder = local_folder(tmp_path, crosscoders=specs, **changes)
    Run(folder.path).run()
    metrics = json.loads(folder.file("metrics.json").read_text())
    assert [c["penalties"].get("sum_minus_max", 0) for c in metrics["crosscoders"]] == [
        0,
        1,
        10,
        100,
        1000,
        10_000,
    ]

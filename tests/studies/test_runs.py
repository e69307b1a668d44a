"""The studies that train on text, at tiny sizes: they run, and write their pages."""

from pathlib import Path
from typing import Any

import pytest
from reference.tiny_models import CONTEXT, save_tiny
from runs.local_run import write_text

import xtalk
from studies.clusters import clusters, text_runs
from studies.embedded import train_planted
from studies.results import results, variations
from studies.validation import validation
from xtalk.evaluation import validation as interventions

SMALL: dict[str, Any] = {
    "harvest": {"scaling_tokens": 512, "buffer_sequences": 64, "loss_metric_tokens": 64},
    "crosscoder": {"d_sae": 32, "k": 4},
    "training": {"steps": 5, "batch_tokens": 64},
    "evaluation": {"tokens": 400, "resamples": 100},
    "certificates": [],
}


@pytest.fixture
def texts(tmp_path: Path, monkeypatch) -> list[str]:
    """Options that name a text to train on and another to measure on; runs are small, of a tiny model."""
    save_tiny(tmp_path / "model")
    for seed, name in enumerate(("train", "test")):
        write_text(tmp_path / f"{name}.jsonl", 40, seed)
    preset, tiny = xtalk.preset, {"model": str(tmp_path / "model"), "sequence_length": CONTEXT}

    def small(name: str, **settings: Any) -> xtalk.RunConfig:
        own = {} if "planted" in settings.get("model", "") else tiny
        return preset(name, **(settings | SMALL | own))

    monkeypatch.setattr(xtalk, "preset", small, raising=False)
    return ["--text", str(tmp_path / "train.jsonl"), "--held-out-text", str(tmp_path / "test.jsonl")]


def test_results(texts: list[str], tmp_path: Path):
    page = tmp_path / "docs" / "results.md"
    seeds = ["--seeds", "0", "1", "--crosscoders", "unpenalised", "paper-30"]
    results.main([*texts, *seeds, "--out", str(tmp_path / "out"), "--page", str(page)])
    assert page.read_text().count("\n| unpenalised | ") == page.read_text().count("\n| paper-30 | ") == 4
    assert " ± " in page.read_text()
    assert (tmp_path / "docs" / "figures" / "results.png").stat().st_size > 0


def test_variations(texts: list[str], tmp_path: Path, monkeypatch):
    tried = {"unpenalised": {}, "counts": variations.counts(4.0)}
    monkeypatch.setattr(variations, "VARIATIONS", tried)
    page = tmp_path / "variations.md"
    where = ["--out", str(tmp_path / "out"), "--page", str(page)]
    variations.main([*texts, "--only", *tried, *where])
    assert page.read_text().count("\n| unpenalised | ") == page.read_text().count("\n| counts | ") == 1


def test_validation(texts: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(interventions, "FEWEST", 2)
    monkeypatch.setattr(interventions, "FEWEST_PAIRS", 5)
    monkeypatch.setattr(text_runs, "SEEDS", range(2))
    page = tmp_path / "validation.md"
    where = ["--runs", str(tmp_path / "out"), "--page", str(page)]
    validation.main([*texts, *where, "--crosscoders", "unpenalised", "--tokens", "400"])
    assert page.read_text().count("\n## unpenalised, 2 seeds") == 1


def test_clusters(texts: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(text_runs, "SEEDS", range(2))
    monkeypatch.setattr(text_runs, "PLANTED_STEPS", 1)
    page = tmp_path / "clusters.md"
    where = ["--runs", str(tmp_path / "out"), "--planted", str(tmp_path / "planted"), "--page", str(page)]
    clusters.main([*texts, *where])
    assert "Adjusted mutual information" in page.read_text()


def test_planted(tmp_path: Path):
    train_planted.main(["--out", str(tmp_path), "--steps", "1", "--batch", "2"])
    assert {file.name for file in tmp_path.iterdir()} == {"model", "text.jsonl"}

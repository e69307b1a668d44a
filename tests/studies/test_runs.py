"""The studies that train on text, at tiny sizes: they run, and write their pages."""

import re
import shutil
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from reference.tiny_models import CONTEXT, save_tiny
from runs.local_run import write_text

import xtalk
from studies.clusters import clusters, text_runs
from studies.clusters.affinities import MEANING
from studies.clusters.page import SIMILARITIES
from studies.results import frontier, results, rivals, variations
from studies.validation import validation
from xtalk.errors import XtalkError
from xtalk.evaluation import validation as interventions

SMALL: dict[str, Any] = {
    "harvest": {"scaling_tokens": 512, "buffer_sequences": 64, "loss_metric_tokens": 64},
    "crosscoder": {"d_sae": 16, "k": 3},
    "training": {"steps": 2, "batch_tokens": 512},
    "evaluation": {"tokens": 400, "resamples": 100},
    "certificates": [],
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[str]:
    """Options that name a text to train on and another to measure on; runs are small, of a tiny model."""
    folder = tmp_path_factory.mktemp("texts")
    save_tiny(folder / "model")
    for seed, name in enumerate(("train", "test")):
        write_text(folder / f"{name}.jsonl", 40, seed)
    preset, tiny = xtalk.preset, {"model": str(folder / "model"), "sequence_length": CONTEXT}

    def small(name: str, **settings: Any) -> xtalk.RunConfig:
        return preset(name, **(settings | SMALL | tiny))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xtalk, "preset", small, raising=False)
        yield ["--text", str(folder / "train.jsonl"), "--held-out-text", str(folder / "test.jsonl")]


@pytest.fixture(scope="module")
def runs(texts: list[str], tmp_path_factory) -> Path:
    """The folder of two runs that the studies of clusters and of validation read."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_runs, "SEEDS", range(2))
        parser = ArgumentParser()
        text_runs.add_arguments(parser)
        text_runs.text_runs(parser.parse_args([*texts, "--runs", str(folder)]))
    return folder


def test_results(texts: list[str], tmp_path: Path):
    page = tmp_path / "docs" / "results.md"
    seeds = ["--seeds", "0", "1", "--crosscoders", "unpenalised"]
    results.main([*texts, *seeds, "--out", str(tmp_path / "out"), "--page", str(page)])
    assert page.read_text().count("\n| unpenalised | ") == 4
    assert " ± " in page.read_text()
    assert (tmp_path / "docs" / "figures" / "results.png").stat().st_size > 0


def test_variations(texts: list[str], tmp_path: Path, monkeypatch):
    tried = {"unpenalised": {}, "counts": variations.counts(4.0)}
    monkeypatch.setattr(variations, "VARIATIONS", tried)
    page = tmp_path / "variations.md"
    where = ["--out", str(tmp_path / "out"), "--page", str(page)]
    variations.main([*texts, "--only", *tried, *where])
    assert page.read_text().count("\n| unpenalised | ") == page.read_text().count("\n| counts | ") == 1


def test_frontier(texts: list[str], tmp_path: Path):
    """One variant and seed at a time, then the page of all that is there, and of a plain run beside it."""
    variants = tmp_path / "variants.yaml"
    variants.write_text("""
all:
  sequence_length: 8
  hookpoints: [blocks.0.ln2, blocks.1.ln2, blocks.2.ln2]
  training: {batch_tokens: 512}
variants:
  unpenalised: {penalties: {}}
  nested: {penalties: {keep_few: 2, keep_one_together: 1}}
  on-own: {hookpoints: [blocks.1.resid_mid, blocks.1.ln2], penalties: {full_sum_kl_resid: 1}}
""")
    page = tmp_path / "docs" / "frontier.md"
    data = tmp_path / "docs" / "data" / "frontier.json"
    where = ["--variants", str(variants), "--out", str(tmp_path / "out"), "--page", str(page)]
    where += ["--data", str(data)]
    frontier.main([*texts, *where, "--only", "nested", "--seeds", "1"])
    assert page.read_text().count("\n| nested | ") == 4 and "\n| unpenalised | " not in page.read_text()
    frontier.main([*texts, *where, "--only", "unpenalised", "nested", "--seeds", "0"])
    written = page.read_text()
    assert written.count("\n| nested | ") == written.count("\n| unpenalised | ") == 4
    assert "unpenalised 1; nested 2" in written and "**nested**: keep_few 2, keep_one_together 1" in written
    assert (tmp_path / "docs" / "figures" / "frontier.png").stat().st_size > 0
    frontier.main([*texts, *where, "--only", "--taken", str(tmp_path / "out" / "nested" / "seed-1")])
    assert page.read_text().count("\n| nested (16 latents, K 3, 0.00 M tokens) | ") == 4
    with pytest.raises(XtalkError, match=r"no variant 'other'.* it has unpenalised, nested, on-own"):
        frontier.main([*texts, *where, "--only", "other"])
    assert "own `resid_mid`" not in written
    shutil.rmtree(tmp_path / "out")
    frontier.main([*texts, *where, "--only", "unpenalised", "nested", "--seeds", "0"])
    assert page.read_text() == written and not (tmp_path / "out").exists()  # the figures are kept
    variants.write_text(variants.read_text().replace("keep_few: 2", "keep_few: 3"))
    frontier.main([*texts, *where, "--only"])
    assert "nested" not in page.read_text()  # those of another variant of this name
    frontier.main([*texts, *where, "--only", "on-own", "--seeds", "0"])
    [table] = re.findall(r"crosscoder's own `resid_mid`\..*?\n\n(.*?)\n\n", page.read_text(), re.DOTALL)
    assert "\n| on-own | " in table and "unpenalised" not in table


def test_rivals(texts: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rivals, "SEQUENCE", 8)
    page, model = tmp_path / "docs" / "rivals.md", Path(texts[1]).parent / "model"
    sizes = ["--steps", "20", "--batch-tokens", "64", "--latents", "16", "-k", "3"]
    sizes += ["--evaluation-tokens", "400", "--edge-tokens", "64", "--seeds", "0"]
    only = ["--only", "topk", "jacobian-128"]
    where = ["--model", str(model), "--out", str(tmp_path / "out"), "--page", str(page)]
    rivals.main([*texts, *where, *sizes, *only])
    written = page.read_text()
    assert all(written.count(f"\n| {name} | ") == 4 for name in only[1:]) and "nan" not in written
    (tmp_path / "out" / "topk" / "seed-0" / "edges.json").unlink()
    monkeypatch.delattr(rivals, "train_on")  # what is trained is kept
    rivals.main([*texts, *where, *sizes, *only])
    assert page.read_text() == written


def test_validation(runs: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(interventions, "FEWEST", 2)
    monkeypatch.setattr(interventions, "FEWEST_PAIRS", 5)
    page = tmp_path / "validation.md"
    chosen = ["--crosscoders", "unpenalised", "--tokens", "400"]
    validation.main(["--runs", str(runs), "--page", str(page), *chosen])
    assert page.read_text().count("\n## unpenalised, 2 seeds") == 1


def test_clusters(runs: Path, tmp_path: Path, monkeypatch):
    """Of so small runs no cluster can be judged: the page is written with accuracies made up."""
    monkeypatch.setattr(clusters, "METHODS", ["spectral"])
    monkeypatch.setattr(clusters, "RESAMPLES", 2)
    monkeypatch.setattr(clusters, "SITES", ("qk",))
    monkeypatch.setattr(clusters, "planted_runs", lambda place: [])
    written, real = tmp_path / "clusters.md", clusters.page

    def page(*, judged: dict[str, Any], sites: list[Any], affinities: dict[str, Any], **rest: Any) -> str:
        for found in [*(one for seeds in judged.values() for one in seeds["spectral"])]:
            fill(found["accuracies"])
            found["ami"] = dict.fromkeys(SIMILARITIES, 0.1)
        for found in [*sites, *(one for seeds in affinities.values() for one in seeds)]:
            fill(found)
        rest["truth"] = {"planted": judged["unpenalised"]}
        return real(judged=judged, sites=sites, affinities=affinities, **rest)

    monkeypatch.setattr(clusters, "page", page)
    clusters.main(["--runs", str(runs), "--planted", str(tmp_path), "--page", str(written)])
    assert written.read_text().count("\n| unpenalised, spectral | ") == 3
    assert written.read_text().count("\n| planted, spectral | ") == 3


def fill(accuracies: dict[str, dict[str, list[float]]]) -> None:
    """Accuracies at three clusters, for every similarity that is there or may be shown."""
    for by_name in accuracies.values():
        by_name.update({name: [0.1, 0.4, 0.5] for name in [*by_name, *SIMILARITIES, *MEANING]})

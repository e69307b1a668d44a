"""Counting fillings by their sum of scores, against enumeration."""

from itertools import product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xtalk_check.counting import successes
from xtalk_check.errors import Rejected
from xtalk_check.work import Work

slots_ = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(-20, 20), st.integers(1, 4)), min_size=1, max_size=4),
        st.integers(1, 2),
    ),
    min_size=1,
    max_size=3,
)


def enumerated(slots, least: int) -> int:
    positions = [columns for columns, copies in slots for _ in range(copies)]
    return sum(
        prod(tokens for _, tokens in filling)
        for filling in product(*positions)
        if sum(score for score, _ in filling) >= least
    )


@given(slots_, st.integers(-60, 60))
def test_counts_are_those_of_enumeration(slots, least):
    assert successes(slots, least, Work()) == enumerated(slots, least)


def test_counts_on_the_edge():
    slots = [([(0, 2), (3, 5)], 2), ([(-1, 1)], 1)]
    assert [successes(slots, least, Work()) for least in (-2, -1, 0, 2, 3, 5, 6)] == [
        49,
        49,
        45,
        45,
        25,
        25,
        0,
    ]
    assert successes([([(0, 1), (1, 1), (5, 1)], 2)], 2, Work()) == 6  # two sums fall short, 0 and 1


def test_scores_of_too_wide_a_range_are_refused():
    with pytest.raises(Rejected, match="choose fewer bits"):
        successes([([(0, 1), (1 << 17, 1)], 2)], 1 << 17, Work())


def test_products_of_polynomials_are_counted():
    """A multiply-add for each score and coefficient: 1, then 2, and no more; 2 scores each."""
    work = Work()
    assert successes([([(0, 1), (1, 1)], 3)], 2, work) == 4
    assert work.multiply_adds == (1 + 2 + 2) * 2 and work.steps == 3 * 2 * 2
    assert successes([([(4, 1), (5, 1)], 3)], 12, work) == 8  # the least suffice: no product
    assert successes([([(4, 1), (5, 1)], 3)], 16, work) == 0  # nor where nothing does
    assert work.multiply_adds == (1 + 2 + 2) * 2

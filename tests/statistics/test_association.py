"""Associations: exact counts, permutation p-values against Fisher's, strata, false discovery rates."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from xtalk.statistics.association import associations

RNG = np.random.default_rng(0)
GROUPS = np.repeat([0, 1, 2, -1], [30, 25, 40, 60])
MARKED = RNG.random(155) < np.select([GROUPS == 0], [0.6], 0.2)
ONE_STRATUM = np.zeros(155, dtype=np.int64)


def test_counts_and_p_values_are_fishers():
    for one in associations(GROUPS, MARKED, ONE_STRATUM, seed=0):
        inside = one.group == GROUPS
        table = [
            [sum(MARKED & inside), sum(~MARKED & inside)],
            [sum(MARKED & ~inside), sum(~MARKED & ~inside)],
        ]
        assert (one.units, one.marked) == (inside.sum(), table[0][0])
        assert one.expected == pytest.approx(MARKED.mean() * inside.sum(), abs=0.5)
        assert one.p_value == pytest.approx(fisher_exact(table, "greater")[1], abs=0.03)
        half = np.array(table) + 0.5
        assert one.odds_ratio == pytest.approx(half[0, 0] * half[1, 1] / (half[0, 1] * half[1, 0]))


def test_a_mark_and_a_group_of_the_same_stratum_are_not_associated_for_that():
    strata = np.repeat([0, 1], [80, 120])
    groups = np.where(strata == 0, 0, 1)
    groups[:80:2] = 2
    marked = (strata == 0) & (np.arange(200) % 4 < 2)
    by_stratum = {one.group: one.p_value for one in associations(groups, marked, strata, seed=0)}
    pooled = {one.group: one.p_value for one in associations(groups, marked, np.zeros(200, int), seed=0)}
    assert pooled[0] < 0.01 < 0.3 < by_stratum[0]


def test_false_discovery_rates_are_benjamini_and_hochbergs():
    groups, marked = RNG.integers(0, 12, 300), RNG.random(300) < 0.3
    marked |= groups == 5
    found = associations(groups, marked, np.zeros(300, int), seed=0)
    for one in found:
        ranks = [(sum(other.p_value <= p for other in found), p) for p in (o.p_value for o in found)]
        expected = min(1.0, *(p * len(found) / rank for rank, p in ranks if p >= one.p_value))
        assert one.q_value == pytest.approx(expected)
    assert min(one.q_value for one in found) < 0.05 < 0.5 < max(one.q_value for one in found)
    assert associations(np.full(300, -1), marked, np.zeros(300, int), seed=0) == []

"""Resampling of documents."""

import numpy as np
import pytest

from xtalk.errors import XtalkError
from xtalk.statistics.bootstrap import Bootstrap, interval, mean_over


def test_totals_are_those_of_the_text_and_of_documents_drawn_again():
    sums_E = np.random.default_rng(0).normal(size=11)
    bootstrap = Bootstrap(11, resamples=20, seed=4)
    totals_R = bootstrap.totals(sums_E)
    assert totals_R[0] == sums_E.sum()
    for r in range(20):
        drawn = [sums_E[e] for e in range(11) for _ in range(int(bootstrap.counts_RE[r, e]))]
        assert len(drawn) == 11
        assert totals_R[1 + r] == pytest.approx(sum(drawn))


def test_resamples_are_one_seeded_set_for_all_statistics():
    first, again, other = Bootstrap(9, 50, seed=1), Bootstrap(9, 50, seed=1), Bootstrap(9, 50, seed=2)
    sums_E = np.arange(9.0)
    assert np.array_equal(first.totals(sums_E), again.totals(sums_E))
    assert np.array_equal(first.totals(sums_E), first.totals(sums_E))
    assert not np.array_equal(first.totals(sums_E), other.totals(sums_E))


def test_interval_is_the_central_95_percent_of_the_resamples():
    statistic_R = np.concatenate([[0.3], np.random.default_rng(0).permutation(np.arange(1001) / 1000)])
    assert interval(statistic_R) == (0.3, pytest.approx(0.025), pytest.approx(0.975))


def test_a_mean_over_blocks_pairs_the_resamples():
    """Two blocks whose errors cancel have a mean that does not vary, though each of them does."""
    bootstrap, sums_E = Bootstrap(10, 200, seed=0), np.random.default_rng(1).normal(size=10)
    one, other = bootstrap.totals(sums_E), -bootstrap.totals(sums_E)
    assert interval(one).high - interval(one).low > 1
    assert interval(mean_over([one, other])) == (0, 0, 0)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng, covered = np.random.default_rng(3), 0
    for experiment in range(400):
        tokens_E = rng.integers(20, 60, 50).astype(float)
        means_E = rng.normal(2.0, 1.0, 50)  # tokens of a document agree: the document is what varies
        bootstrap = Bootstrap(50, 200, seed=experiment)
        low, high = interval(bootstrap.totals(means_E * tokens_E) / bootstrap.totals(tokens_E))[1:]
        covered += low < 2.0 < high
    assert 0.90 <= covered / 400 <= 0.98


def test_too_few_documents_are_refused():
    Bootstrap(8, 10, seed=0)
    with pytest.raises(XtalkError, match="has 7 documents"):
        Bootstrap(7, 10, seed=0)

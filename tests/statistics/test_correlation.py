import numpy as np
import pytest
from scipy.stats import spearmanr

from xtalk.statistics.correlation import Effects, mean_correlated, rank_correlations, standard_ranks

BASELINES = ("noise", "opposite")


def effects(pairs=60, documents=12, seed=0) -> Effects:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (pairs, documents)).astype(float)
    counts[:, 0] += 1
    return Effects(counts * rng.gamma(2, np.arange(1, pairs + 1)[:, None], (pairs, documents)), counts)


def test_products_of_standard_ranks_are_spearmans_correlation_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 7, 20)).astype(float)
    expected = [spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose((standard_ranks(x) * standard_ranks(y)).sum(-1), expected)
    assert not standard_ranks(np.ones((1, 4))).any()


def test_correlations_and_their_intervals():
    of = effects()
    rng = np.random.default_rng(1)
    mean = of.sums_QE.sum(1) / of.counts_QE.sum(1)
    measures = {
        "itself": mean,
        "opposite": -mean,
        "noise": rng.random(60),
        "near": mean * rng.gamma(9, size=60),
    }
    found = rank_correlations(measures, of, np.ones(60), "noise", 300, seed=0)
    assert found.over_pairs("itself") == pytest.approx((1, 1, 1))
    assert found.over_pairs("opposite").value == pytest.approx(-1)
    near = found.over_pairs("near")
    assert near.value == pytest.approx(spearmanr(measures["near"], mean).statistic)
    assert near.low < near.value < near.high < 1
    documents = found.over_documents("itself")
    assert documents.low < documents.high < 1  # other documents, other effects
    assert found.over_pairs("noise").low < 0 < found.over_pairs("noise").high
    lead = found.lead("near", ("noise",))
    assert lead.value == pytest.approx(near.value - abs(found.over_pairs("noise").value))
    assert found.lead("near", BASELINES).value == pytest.approx(near.value - 1)  # a strong sign either way
    mean_of_two = mean_correlated([found, found])
    assert mean_of_two.over_pairs("near") == pytest.approx(near)


def test_weights_change_what_is_ranked():
    of = effects()
    weight = np.random.default_rng(2).gamma(1, size=60)
    measures = {"weighted": of.mean_Q * weight}
    assert rank_correlations(measures, of, weight, "weighted", 10, 0).over_pairs(
        "weighted"
    ).value == pytest.approx(1)
    assert rank_correlations(measures, of, np.ones(60), "weighted", 10, 0).over_pairs("weighted").value < 0.95


def test_weights_count_for_resampled_documents_too():
    counts = np.ones((60, 12))
    of = Effects(counts * np.linspace(1, 2, 60)[:, None], counts)  # the same whichever documents are drawn
    weight = np.random.default_rng(2).gamma(1, size=60)
    found = rank_correlations({"weighted": of.mean_Q * weight}, of, weight, "weighted", 10, 0)
    assert found.over_documents("weighted") == pytest.approx((1, 1, 1))


def test_a_pair_without_drawn_documents_keeps_its_effect():
    of = Effects(np.array([[6.0, 0, 0], [1, 1, 1]]), np.array([[2.0, 0, 0], [1, 1, 1]]))
    resampled = of.resampled(50, np.random.default_rng(0))
    assert (resampled[:, 0] == 3).all()


def test_partial_correlations_take_the_control_out():
    rng = np.random.default_rng(3)
    control, own = rng.normal(size=(2, 400))
    effect, counts = np.exp(control + own)[:, None] * np.ones((1, 4)), np.ones((400, 4))
    measures = {"control": control, "copy": control + 1e-3 * rng.normal(size=400), "own": control + 2 * own}
    found = rank_correlations(measures, Effects(effect, counts), np.ones(400), "control", 200, 0)
    assert found.over_pairs("copy").value > 0.6
    copy, own_part = found.beyond_control("copy"), found.beyond_control("own")
    assert copy.low < 0 < copy.high
    assert own_part.low > 0.9
    assert found.beyond_control("control") == (0, 0, 0)
    ranks = [np.argsort(np.argsort(x)) for x in (measures["own"], effect[:, 0], control)]
    residuals = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert own_part.value == pytest.approx(np.corrcoef(*residuals)[0, 1])

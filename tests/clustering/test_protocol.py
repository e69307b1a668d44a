"""The protocol: what a trial is made of, that a perfect judge is right and a blind one at chance."""

import numpy as np
import pytest
import scipy.sparse as sp

from xtalk.clustering import Clustering, Similarity, judge_clusters, make_trials, matched_random
from xtalk.clustering.protocol import LARGEST, POOL, bootstrap_mean
from xtalk.errors import XtalkError

LABELS = np.concatenate([np.full(LARGEST + 1, 0), np.repeat(np.arange(1, 9), 7), [9, 9], np.full(30, -1)])
CLUSTERS = Clustering(LABELS, True)
EVERYONE = np.arange(len(LABELS))


@pytest.mark.parametrize("distractors", ["any", "rate", "coactivation"])
def test_a_trial_shows_members_and_hides_one_among_others(distractors):
    rates_L = np.linspace(0.01, 0.5, len(LABELS))
    similarity = Similarity(EVERYONE, sp.csr_array(1.0 - np.eye(len(LABELS))))
    trials = make_trials(
        CLUSTERS, EVERYONE, seed=0, distractors=distractors, rates_L=rates_L, coactivation=similarity
    )
    assert {trial.cluster for trial in trials} == set(range(1, 9))  # not the one too large, nor too small
    for trial in trials:
        held_out = trial.candidates[trial.place]
        assert {LABELS[i] for i in (*trial.shown, held_out)} == {trial.cluster}
        assert held_out not in trial.shown
        assert len(set(trial.candidates)) == 5
        assert all(LABELS[i] != trial.cluster for i in trial.candidates if i != held_out)
        if distractors == "rate":
            assert all(abs(i - held_out) <= 7 + POOL for i in trial.candidates)
    places = np.bincount([trial.place for trial in trials], minlength=5)
    assert (places > 0).all()


def test_coactivation_matched_distractors_are_as_coactive_as_the_held_out_member():
    near = np.zeros((len(LABELS), len(LABELS)))
    near[LABELS == 3] = (
        0.5  # cluster 3 is as co-active with all of cluster 5 as with itself, and with no other
    )
    near[:, :] = 0.1
    mates = (LABELS == 3) | (LABELS == 5)
    near[np.ix_(mates, mates)] = 0.5
    np.fill_diagonal(near, 0)
    trials = make_trials(
        CLUSTERS,
        EVERYONE,
        seed=0,
        distractors="coactivation",
        coactivation=Similarity(EVERYONE, sp.csr_array(near)),
    )
    for trial in trials:
        if trial.cluster == 3:
            others = [i for i in trial.candidates if LABELS[i] != 3]
            assert sum(LABELS[i] == 5 for i in others) >= 1


def test_judges_earn_what_they_deserve():
    trials = make_trials(CLUSTERS, EVERYONE, seed=1, per_cluster=40)
    perfect = judge_clusters(trials, lambda t: float(LABELS[t.candidates[t.place]] == t.cluster))
    assert perfect.accuracy(0) == (1.0, 1.0, 1.0)
    blind = judge_clusters(trials, lambda t: float(t.place == 2))
    value, low, high = blind.accuracy(0)
    assert low < 0.2 < high
    assert value == pytest.approx(0.2, abs=0.07)
    assert blind.trials == 40 * 8


def test_random_clusters_have_the_same_sizes_and_other_members():
    random = matched_random(CLUSTERS, seed=0)
    assert (
        np.bincount(random.labels_L[random.labels_L >= 0]).tolist()
        == np.bincount(LABELS[LABELS >= 0]).tolist()
    )
    assert (random.labels_L >= 0).tolist() == (LABELS >= 0).tolist()
    assert (random.labels_L != LABELS).any()


def test_intervals_need_two_clusters_and_matching_needs_its_data():
    with pytest.raises(XtalkError, match="1 cluster"):
        bootstrap_mean(np.ones(1), 0)
    with pytest.raises(XtalkError, match="matched by rate"):
        make_trials(CLUSTERS, EVERYONE, seed=0, distractors="rate")


def test_the_interval_covers_the_mean_of_what_was_drawn():
    covered = 0
    for seed in range(60):
        values = np.random.default_rng(seed).random(40)
        _, low, high = bootstrap_mean(values, seed)
        covered += low <= 0.5 <= high
    assert covered >= 52

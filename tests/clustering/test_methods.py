"""Every method finds clusters that are plainly there, reports convergence, and refuses what it cannot do."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from sklearn.cluster import HDBSCAN, AffinityPropagation, SpectralClustering
from sklearn.metrics import adjusted_rand_score

from xtalk.clustering import METHODS, Similarity, find_clusters, methods
from xtalk.errors import XtalkError

SIZES = [9, 8, 8, 7, 8, 9, 7, 8, 8, 8, 7, 9]
TRUTH = np.repeat(np.arange(12), SIZES)
LATENTS = np.arange(2, 2 + 2 * len(TRUTH), 2)  # every other latent takes no part


def blocks(noise: float = 0.1) -> Similarity:
    rng = np.random.default_rng(0)
    values = noise * rng.random((len(TRUTH), len(TRUTH))) + (TRUTH[:, None] == TRUTH) * (
        0.7 + 0.2 * rng.random()
    )
    values = (values + values.T) / 2
    np.fill_diagonal(values, 0)
    return Similarity(LATENTS, sp.csr_array(values))


@pytest.mark.parametrize("method", METHODS)
def test_plain_clusters_are_found(method: str):
    found = find_clusters(blocks(), method, 200, seed=0)
    assert found.converged
    assert found.labels_L.shape == (200,)
    assert set(np.flatnonzero(found.labels_L >= 0)) <= set(LATENTS.tolist())
    assert adjusted_rand_score(TRUTH, found.labels_L[LATENTS]) == pytest.approx(1.0)
    sizes = [len(found.members(c)) for c in range(found.count)]
    assert sizes == sorted(SIZES, reverse=True)


def test_affinity_propagation_takes_the_similarity_as_such():
    """Given a similarity, scikit-learn's default would cluster its rows by their distance."""
    rng = np.random.default_rng(1)
    values = rng.random((40, 40)) ** 3
    values = np.triu(values, 1) + np.triu(values, 1).T
    found = find_clusters(Similarity(np.arange(40), sp.csr_array(values)), "affinity-propagation", 40, seed=0)
    labels = {
        affinity: AffinityPropagation(affinity=affinity, damping=0.8, max_iter=400, random_state=0)
        .fit(values)
        .labels_
        for affinity in ("precomputed", "euclidean")
    }
    together = found.labels_L >= 0
    assert adjusted_rand_score(labels["precomputed"][together], found.labels_L[together]) == 1.0
    assert adjusted_rand_score(labels["euclidean"][together], found.labels_L[together]) < 0.9


@pytest.mark.parametrize("across", [0.0, 0.1])
def test_hdbscan_of_listed_pairs_is_that_of_all_pairs(across: float):
    """Also where clusters are pieces of their own, and latents have fewer neighbours than make a core."""
    rng = np.random.default_rng(3)
    listed = np.triu(rng.random((96, 96)) < 0.6, 1)
    scale = (TRUTH[:, None] == TRUTH) + across * (rng.random((96, 96)) < 0.3)
    values = rng.random((96, 96)) * listed * scale
    values[0, 1:], values[:, 0] = 0, 0
    values[0, 5] = 0.2
    values += values.T
    found = find_clusters(Similarity(LATENTS, sp.csr_array(values)), "hdbscan", 200, seed=0)
    distance = 1 - values / values.max()
    np.fill_diagonal(distance, 0)
    expected = HDBSCAN(min_cluster_size=3, metric="precomputed", copy=True).fit_predict(distance)
    clear = (expected >= 0) & ((values > 0).sum(1) > 2)  # ties of the others are broken either way
    assert clear.sum() > 60
    assert adjusted_rand_score(expected[clear], found.labels_L[LATENTS][clear]) == 1.0


def test_spectral_clusters_of_listed_pairs_are_those_of_the_dense_similarity():
    rng = np.random.default_rng(5)
    values = rng.random((300, 300)) ** 4 * (rng.random((300, 300)) < 0.2) + np.kron(
        np.eye(60), np.ones((5, 5))
    )
    values = np.triu(values, 1) + np.triu(values, 1).T
    found = find_clusters(Similarity(np.arange(300), sp.csr_array(values)), "spectral", 300, seed=0)
    dense = SpectralClustering(37, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    expected, together = dense.fit_predict(values), found.labels_L >= 0
    assert together.sum() > 290
    assert adjusted_rand_score(expected[together], found.labels_L[together]) > 0.99
    assert found.converged


def test_eigenvectors_that_do_not_settle_are_told(monkeypatch):
    def unsettled(scaled_FF, clusters, **_):
        values, vectors = eigsh(scaled_FF, clusters - 3, which="LA")
        raise ArpackNoConvergence("too slow", values, vectors)

    monkeypatch.setattr(methods, "eigsh", unsettled)
    found = find_clusters(blocks(), "spectral", 200, seed=0)
    assert (found.converged, found.count) == (False, 9)


def test_a_method_that_does_not_settle_says_so(monkeypatch):
    monkeypatch.setattr(methods, "ITERATIONS", 16)
    assert not find_clusters(blocks(0.9), "affinity-propagation", 200, seed=0).converged


def test_what_cannot_be_clustered_is_refused(monkeypatch):
    with pytest.raises(XtalkError, match="no clustering method 'means'; expected one of affinity"):
        find_clusters(blocks(), "means", 200, seed=0)
    one = Similarity(np.arange(3), sp.csr_array(1.0 - np.eye(3)))
    with pytest.raises(XtalkError, match="louvain finds all 3 latents in one cluster"):
        monkeypatch.setattr(methods, "RESOLUTION", 0.1)
        find_clusters(one, "louvain", 3, seed=0)
    monkeypatch.setattr(methods, "MOST_DENSE", 20)
    with pytest.raises(
        XtalkError,
        match=r"96 latents for affinity-propagation, .* at most 20; use hdbscan or spectral or lou",
    ):
        find_clusters(blocks(), "affinity-propagation", 200, seed=0)
    for method in ("hdbscan", "spectral", "louvain"):
        monkeypatch.setattr(methods, "RESOLUTION", 5.0)
        assert find_clusters(blocks(), method, 200, seed=0).count > 5

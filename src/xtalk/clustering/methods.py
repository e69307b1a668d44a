"""Clusters from a similarity, by four methods of well-kept libraries.

Spectral clustering is scipy's eigenvectors with scikit-learn's `cluster_qr` assignment: scikit-learn's own
factorises the similarity, which fills every pair in.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.linalg import polar, qr
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from sklearn.cluster import HDBSCAN, AffinityPropagation
from sklearn.exceptions import ConvergenceWarning

from xtalk.clustering.similarity import Similarity
from xtalk.clustering.sparse import entries
from xtalk.errors import XtalkError

MOST_DENSE = 6000  # latents for affinity propagation, which holds every pair, several times: some GB
LATENTS_PER_CLUSTER = 8  # of spectral clustering, which needs the number of clusters
NEIGHBOURS = 10  # of each latent in the graph of the communities
RESOLUTION = 5.0  # of the communities: at 1 most hold more latents than a reader can take in
ITERATIONS = 400
EIGENVALUE_TOLERANCE = 1e-4  # relative; clusters are those of exact eigenvectors well before that
UNRELATED = 1.0  # distance of latents without similarity


@dataclass(frozen=True)
class Clustering:
    """Which cluster each latent is in, -1 for none, the largest cluster 0; and whether the method settled."""

    labels_L: Int[np.ndarray, "L"]
    converged: bool

    @property
    def count(self) -> int:
        """The number of clusters."""
        return int(self.labels_L.max()) + 1

    def members(self, cluster: int) -> Int[np.ndarray, "m"]:
        """The latents of a cluster, ascending."""
        return np.flatnonzero(self.labels_L == cluster)


Labels = Int[np.ndarray, "F"]
Method = Callable[[sp.csr_array, int], tuple[Labels, bool]]


def find_clusters(similarity: Similarity, method: str, n_latents: int, seed: int) -> Clustering:
    """The clusters of a similarity; latents that it leaves out, and clusters of one, are in none.

    Errors: XtalkError for an unknown method, too many latents for it, or where all latents are one cluster.
    """
    if method not in METHODS:
        raise XtalkError(f"no clustering method {method!r}; expected one of {', '.join(METHODS)}")
    F = len(similarity.latents_F)
    if method == AFFINITY_PROPAGATION and F > MOST_DENSE:
        others = [name for name in METHODS if name != AFFINITY_PROPAGATION]
        raise XtalkError(
            f"{F} latents for {method}, which sends messages between every two of them, in dense matrices; "
            f"expected at most {MOST_DENSE}; use {' or '.join(others)}, which hold listed pairs alone"
        )
    labels_F, converged = METHODS[method](similarity.values_FF, seed)
    labels_L = np.full(n_latents, -1)
    labels_L[similarity.latents_F] = _by_size(labels_F)
    clustering = Clustering(labels_L, converged)
    if clustering.count == 0 or (labels_L[similarity.latents_F] == 0).all():
        found = f"all {F} latents in one cluster" if clustering.count else f"no cluster among {F} latents"
        raise XtalkError(f"{method} finds {found}; choose another method or normaliser")
    return clustering


def _by_size(labels_F: Labels) -> Labels:
    """Clusters numbered by size, largest first; those of one latent, and outliers, become -1."""
    names, place_F, sizes = np.unique(labels_F, return_inverse=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    kept = [place for place in order.tolist() if names[place] >= 0 and sizes[place] > 1]
    number = np.full(len(names), -1)
    number[kept] = np.arange(len(kept))
    return number[place_F]


def _affinity_propagation(values_FF: sp.csr_array, seed: int) -> tuple[Labels, bool]:
    """The paper's method; the similarity is given as such, and the preference is its median."""
    model = AffinityPropagation(
        affinity="precomputed", damping=0.8, max_iter=ITERATIONS, random_state=seed, copy=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels_F = model.fit(values_FF.toarray()).labels_
    return labels_F, model.n_iter_ < ITERATIONS and bool((labels_F >= 0).all())


def _hdbscan(values_FF: sp.csr_array, seed: int) -> tuple[Labels, bool]:
    model = HDBSCAN(
        min_cluster_size=3,
        metric="precomputed",
        metric_params={"max_distance": UNRELATED},  # of latents with fewer neighbours than make a core
        copy=False,  # pyright: ignore[reportArgumentType]: its stub is wrong
    )
    return model.fit_predict(_distance(values_FF)), True


def _distance(values_FF: sp.csr_array) -> sp.csr_array:
    """UNRELATED less the similarity over its largest, of the pairs that have one; 0 on the diagonal.

    So that the library finds one piece and enough neighbours, a ring of pairs without similarity is stored
    too, at the distance that they have: but for ties, single linkage is that of all pairs.
    """
    pairs, F = entries(values_FF), len(values_FF.indptr) - 1
    own = np.arange(F)
    ring = np.concatenate([own * F + (own + step) % F for step in (-2, -1, 1, 2)])
    related = pairs.rows * F + pairs.columns
    unrelated = np.setdiff1d(ring, np.concatenate([related, own * F + own]))
    keys = np.concatenate([related, unrelated, own * F + own])
    least = np.finfo(np.float64).tiny  # a stored 0 off the diagonal would be no distance
    close = np.maximum(UNRELATED * (1 - pairs.values / pairs.values.max()), least)
    values = np.concatenate([close, np.full(len(unrelated), UNRELATED), np.zeros(F)])
    order = np.argsort(keys)
    start = np.concatenate([[0], np.cumsum(np.bincount(keys // F, minlength=F))])
    return sp.csr_array((values[order], keys[order] % F, start), shape=(F, F))


def _spectral(values_FF: sp.csr_array, seed: int) -> tuple[Labels, bool]:
    """Normalised cuts: eigenvectors of D^-1/2 S D^-1/2 of the largest eigenvalues, a cluster for each."""
    F = len(values_FF.indptr) - 1
    clusters = min(max(2, F // LATENTS_PER_CLUSTER), F - 1)
    degree_F = np.asarray(values_FF.sum(1)).ravel()
    scale_F = 1 / np.sqrt(np.where(degree_F > 0, degree_F, 1))
    scaled_FF = sp.diags_array(scale_F) @ values_FF @ sp.diags_array(scale_F)
    start_F = np.random.default_rng(seed).uniform(-1, 1, F)
    settled = True
    try:
        tolerance: Any = EIGENVALUE_TOLERANCE  # the stub wants an int
        vectors_FC: Any = eigsh(scaled_FF, clusters, which="LA", v0=start_F, tol=tolerance)[1]
    except ArpackNoConvergence as error:
        vectors_FC, settled = error.eigenvectors, False
    return _assign(vectors_FC * scale_F[:, None]), settled


def _assign(vectors_FC: Float[np.ndarray, "F C"]) -> Labels:
    """Damle, Minden and Ying's assignment (2019): C latents that span the rows best, and who is nearest."""
    if not vectors_FC.size:
        raise XtalkError("no eigenvector of the similarity settled; use another clustering method")
    factors: Any = qr(vectors_FC.T, mode="r", pivoting=True)
    rotation_CC = polar(vectors_FC[factors[1][: vectors_FC.shape[1]]].T)[0]
    return np.abs(vectors_FC @ rotation_CC).argmax(1)


def _louvain(values_FF: sp.csr_array, seed: int) -> tuple[Labels, bool]:
    graph = nx.from_scipy_sparse_array(_nearest(values_FF))
    communities = nx.community.louvain_communities(graph, resolution=RESOLUTION, seed=seed)
    labels_F = np.zeros(len(graph), dtype=np.int64)
    for number, members in enumerate(communities):
        labels_F[list(members)] = number
    return labels_F, True


def _nearest(values_FF: sp.csr_array) -> sp.csr_array:
    """The pairs of which one is among the ten most similar of the other."""
    pairs = entries(values_FF)
    order = np.lexsort((-pairs.values, pairs.rows))
    rows = pairs.rows[order]
    nearest = order[np.arange(len(rows)) - np.searchsorted(rows, rows) < NEIGHBOURS]
    listed = (pairs.values[nearest], (pairs.rows[nearest], pairs.columns[nearest]))
    kept = sp.csr_array(listed, shape=pairs.shape)
    return sp.csr_array(kept.maximum(kept.T))


AFFINITY_PROPAGATION = "affinity-propagation"
METHODS: dict[str, Method] = {
    AFFINITY_PROPAGATION: _affinity_propagation,
    "hdbscan": _hdbscan,
    "spectral": _spectral,
    "louvain": _louvain,
}
"""Each takes a similarity and a seed, and returns labels, below 0 for none, and whether it settled."""

"""How far clusters depend on the seed, and on the documents that were measured.

Agreement is the adjusted Rand index, 1 for the same clusters, 0 for clusters as alike as by chance: its mean,
lowest and highest.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from sklearn.metrics import adjusted_rand_score

from xtalk.clustering.methods import Clustering, find_clusters
from xtalk.clustering.similarity import Normaliser, Similarity, normalised_interaction
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.statistics.interval import Interval


def stability_over_seeds(
    similarity: Similarity, method: str, n_latents: int, seeds: Sequence[int]
) -> Interval:
    """How alike the clusters of several seeds are, every two of them."""
    found = [find_clusters(similarity, method, n_latents, seed) for seed in seeds]
    return _agreement([_adjusted_rand(one, other) for one, other in combinations(found, 2)])


def stability_over_documents(
    matrix: PairMatrix, normaliser: Normaliser, method: str, clustering: Clustering, seed: int, resamples: int
) -> Interval:
    """How alike the clusters are to those of the same matrix measured on other documents.

    Other documents are imitated: every pair's interaction is drawn from the normal distribution with its
    standard error over documents (below 0 counts as 0), independently of other pairs. Errors: XtalkError for
    a matrix of fewer than 2 documents.
    """
    if matrix.documents < 2:
        raise XtalkError(
            f"pair interactions of {matrix.documents} document; stability over documents needs 2 or more"
        )
    rng = np.random.default_rng(seed)
    found: list[Clustering] = []
    for _ in range(resamples):
        similarity = normalised_interaction(_redrawn(matrix, rng), normaliser)
        found.append(find_clusters(similarity, method, matrix.n_latents, seed))
    return _agreement([_adjusted_rand(clustering, other) for other in found])


def _redrawn(matrix: PairMatrix, rng: np.random.Generator) -> PairMatrix:
    """The matrix with the sum over parts of every pair drawn anew; row and column sums stay as they are."""
    sums_E = matrix.sums_EP.sum(1)
    drawn_E = sums_E + matrix.errors_EQ[:, -1] * matrix.tokens * rng.standard_normal(len(sums_E))
    factor_E = np.maximum(drawn_E, 0) / np.where(sums_E > 0, sums_E, 1)
    return replace(matrix, sums_EP=matrix.sums_EP * factor_E[:, None])


def _agreement(scores: Sequence[float]) -> Interval:
    return Interval(float(np.mean(scores)), min(scores), max(scores))


def _adjusted_rand(one: Clustering, other: Clustering) -> float:
    """Over the latents that both put into some cluster."""
    both_L = (one.labels_L >= 0) & (other.labels_L >= 0)
    return float(adjusted_rand_score(one.labels_L[both_L], other.labels_L[both_L]))

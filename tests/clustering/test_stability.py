"""Stability: 1 where nothing changes, lower where the errors are large, and what needs documents."""

from dataclasses import replace

import numpy as np
import pytest

from xtalk.clustering import Clustering, find_clusters, normalised_interaction
from xtalk.clustering.stability import _adjusted_rand, stability_over_documents, stability_over_seeds
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix

L, EACH = 64, 8


def matrix(error: float, documents: int = 10) -> PairMatrix:
    """Eight groups of latents that interact more within than across."""
    rng = np.random.default_rng(0)
    group = np.arange(L) // EACH
    values = 0.1 * rng.random((L, L)) + (group[:, None] == group)
    rows, columns = np.nonzero(~np.eye(L, dtype=bool))
    sums_EP = 100 * values[rows, columns][:, None]
    row_sums = np.bincount(rows, sums_EP[:, 0])[:, None]
    column_sums = np.bincount(columns, sums_EP[:, 0])[:, None]
    start = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    return PairMatrix(
        L, ("blocks.0",), 100, documents, start, columns.astype(np.int32),
        np.full(len(rows), 50, np.int32), sums_EP, np.full((len(rows), 2), error, np.float32),
        np.full(L, 60), sums_EP.sum(0), row_sums, column_sums,
    )  # fmt: skip


def test_clusters_that_stand_out_are_stable_and_noise_makes_them_less_so():
    found = find_clusters(normalised_interaction(matrix(0.0), "total"), "spectral", L, 0)
    certain = stability_over_documents(matrix(0.0), "total", "spectral", found, 0, 3)
    assert certain == (1.0, 1.0, 1.0)
    noisy = stability_over_documents(matrix(3.0), "total", "spectral", found, 0, 3)
    assert noisy[0] < 0.9
    assert noisy[1] <= noisy[0] <= noisy[2]
    seeds = stability_over_seeds(normalised_interaction(matrix(0.0), "none"), "louvain", L, range(3))
    assert seeds[0] == pytest.approx(1.0)


def test_agreement_counts_latents_that_both_put_somewhere():
    one = Clustering(np.array([0, 0, 1, 1, -1, 0]), True)
    other = Clustering(np.array([1, 1, 0, 0, 0, -1]), True)
    assert _adjusted_rand(one, other) == 1.0


def test_one_document_is_too_few():
    single = replace(matrix(0.1), documents=1)
    with pytest.raises(XtalkError, match="needs 2 or more"):
        stability_over_documents(single, "total", "spectral", Clustering(np.zeros(L, int), True), 0, 2)

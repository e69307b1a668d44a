"""A flat map of clusters: each a disc of latents, discs that interact near each other, none overlapping."""

import networkx as nx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from xtalk.clustering.methods import Clustering
from xtalk.clustering.similarity import Similarity

_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
_ROUNDS = 200


def lay_out(similarity: Similarity, clustering: Clustering, seed: int) -> Float[np.ndarray, "F 2"]:
    """A position of each of the similarity's latents, about 1 apart; those in no cluster lie outside."""
    labels_F = clustering.labels_L[similarity.latents_F]
    inside_F = labels_F >= 0
    sizes_C = np.bincount(labels_F[inside_F], minlength=clustering.count)
    radii_C = 0.62 * np.sqrt(sizes_C) + 0.8
    centres_C2 = _separate(_centres(similarity.values_FF, labels_F, clustering.count, seed), radii_C)
    positions_F2 = np.zeros((len(labels_F), 2))
    for cluster in range(clustering.count):
        members = np.flatnonzero(labels_F == cluster)
        positions_F2[members] = centres_C2[cluster] + _disc(len(members))
    outside = np.flatnonzero(~inside_F)
    reach = float(np.linalg.norm(positions_F2[inside_F], axis=1).max()) + 4
    angles = np.linspace(0, 2 * np.pi, len(outside), endpoint=False)
    positions_F2[outside] = reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return positions_F2


def _centres(
    values_FF: sp.csr_array, labels_F: np.ndarray, count: int, seed: int
) -> Float[np.ndarray, "C 2"]:
    """Clusters by their mean similarity, as springs pull them."""
    inside = np.flatnonzero(labels_F >= 0)
    member_FC = sp.csr_array((np.ones(len(inside)), (inside, labels_F[inside])), shape=(len(labels_F), count))
    sizes_C = np.asarray(member_FC.sum(0)).ravel()
    between_CC = (member_FC.T @ values_FF @ member_FC).toarray() / np.outer(sizes_C, sizes_C)
    np.fill_diagonal(between_CC, 0)
    graph = nx.from_numpy_array(between_CC / (between_CC.max() or 1.0))
    springs = nx.spring_layout(graph, iterations=50, seed=seed)
    return np.array([springs[cluster] for cluster in range(count)])


def _separate(centres_C2: np.ndarray, radii_C: np.ndarray) -> Float[np.ndarray, "C 2"]:
    """The centres scaled to the area that the discs need, then pushed apart until no two overlap."""
    spread = np.abs(centres_C2).max() or 1.0
    placed_C2 = (centres_C2 - centres_C2.mean(0)) / spread * np.sqrt((radii_C**2).sum())
    least_CC = radii_C[:, None] + radii_C[None]
    np.fill_diagonal(least_CC, 0)
    for _ in range(_ROUNDS):
        apart_CC2 = placed_C2[:, None] - placed_C2[None]
        distance_CC = np.maximum(np.linalg.norm(apart_CC2, axis=2), 1e-9)
        overlap_CC = np.maximum(least_CC - distance_CC, 0)
        if not overlap_CC.any():
            break
        placed_C2 = placed_C2 + 0.5 * ((overlap_CC / distance_CC)[:, :, None] * apart_CC2).sum(1)
    return placed_C2


def _disc(count: int) -> Float[np.ndarray, "n 2"]:
    """Points as seeds in a sunflower."""
    n = np.arange(count)
    radius, angle = 0.6 * np.sqrt(n + 0.3), n * _GOLDEN_ANGLE
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

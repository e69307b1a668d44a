"""Clusters of latents that interact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from xtalk.api.inputs import Dictionary, Model, Texts
from xtalk.api.pairs import pair_interactions
from xtalk.clustering import METHODS, Clustering, Similarity, find_clusters, normalised_interaction
from xtalk.clustering.similarity import Normaliser
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix, combine
from xtalk.progress import Report, silent
from xtalk.reading.pairs import Site


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of latents, the largest first, with the similarity and the pair interactions behind them."""

    clustering: Clustering
    similarity: Similarity
    matrix: PairMatrix

    def __len__(self) -> int:
        return self.clustering.count

    @property
    def labels_L(self) -> Int[np.ndarray, "L"]:
        """The cluster of each latent, -1 for none."""
        return self.clustering.labels_L

    def members(self, cluster: int) -> list[int]:
        """The latents of a cluster, ascending."""
        return self.clustering.members(cluster).tolist()

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cluster: its number, size and members, for `pandas.DataFrame`."""
        by_cluster = [self.members(cluster) for cluster in range(len(self))]
        return [{"cluster": c, "size": len(some), "members": some} for c, some in enumerate(by_cluster)]


def cluster(
    model: Model,
    crosscoder: Dictionary,
    texts: Texts,
    *,
    method: str = "spectral",
    normaliser: Normaliser = "total",
    sites: Sequence[Site] = ("mlp",),
    tokens: int = 32_768,
    sequence_length: int | None = None,
    seed: int = 0,
    progress: Report = silent,
) -> Clusters:
    """Cluster a crosscoder's latents by how much they interact in a model, on texts.

    The similarity of two latents is their interaction in both directions: over the geometric mean of all
    that either has (normaliser: total), per token (none), per co-occurrence, or relative to all of them.
    Of several sites, each one's interactions are divided by all of its terms, and added. Latents active at
    fewer than 8 tokens are in no cluster. method: spectral, affinity-propagation, hdbscan or louvain. Errors:
    XtalkError for an unknown method or normaliser, where all latents are one cluster, and as
    `xtalk.pair_interactions`.

    Source: arXiv 2606.09940, section 6; docs/clusters.md says what clusters must beat to mean something.

    >>> clusters = xtalk.cluster(model, cc, texts)
    >>> largest = clusters.rows()[0]
    >>> largest["members"] == (clusters.labels_L == 0).nonzero()[0].tolist()
    True
    """
    if method not in METHODS:
        raise XtalkError(f"no clustering method {method!r}; expected one of {', '.join(METHODS)}")
    if len(sites) > 1 and normaliser == "co_occurrence":
        raise XtalkError(
            "normaliser co_occurrence for several sites, which count co-occurrences differently; choose "
            "another normaliser, or one site"
        )
    pairs = pair_interactions(
        model,
        crosscoder,
        texts,
        sites=sites,
        tokens=tokens,
        sequence_length=sequence_length,
        progress=progress,
    )
    matrix = combine({**pairs.matrices}) if len(pairs.matrices) > 1 else pairs.matrix
    similarity = normalised_interaction(matrix, normaliser)
    return Clusters(find_clusters(similarity, method, matrix.n_latents, seed), similarity, matrix)

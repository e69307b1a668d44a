"""Clusters of latents, and whether they mean something."""

from xtalk.clustering.evidence import Corpus, OfflineJudge
from xtalk.clustering.methods import METHODS, Clustering, find_clusters
from xtalk.clustering.protocol import Judge, Judged, Trial, judge_clusters, make_trials, matched_random
from xtalk.clustering.similarity import (
    Similarity,
    coactivation_similarity,
    decoder_similarity,
    interaction_similarity,
    normalised_interaction,
)

__all__ = [
    "METHODS",
    "Clustering",
    "Corpus",
    "Judge",
    "Judged",
    "OfflineJudge",
    "Similarity",
    "Trial",
    "coactivation_similarity",
    "decoder_similarity",
    "find_clusters",
    "interaction_similarity",
    "judge_clusters",
    "make_trials",
    "matched_random",
    "normalised_interaction",
]

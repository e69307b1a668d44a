"""Clusters by interaction beside their baselines: the same method and judges, other similarities."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar, get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from xtalk.clustering.methods import Clustering, find_clusters
from xtalk.clustering.protocol import (
    FEWEST_TRIALS,
    Distractors,
    Judge,
    Judged,
    Trial,
    judge_clusters,
    make_trials,
    matched_random,
)
from xtalk.clustering.similarity import (
    Similarity,
    activation_similarity,
    coactivation_similarity,
    decoder_similarity,
)
from xtalk.errors import XtalkError

INTERACTION = "interaction"

logger = logging.getLogger("xtalk")
T = TypeVar("T")


def baseline_similarities(
    interaction: Similarity, codes_BL: sp.csr_array, decoder_LX: Float[np.ndarray, "L X"]
) -> dict[str, Similarity]:
    """The baselines of interaction, between the same latents, from the codes of the same text.

    coactivation: cosine of when they are active; activation: cosine of how strongly they are, which is
    co-activation that knows strengths; decoder: cosine of directions. One by which no two latents are alike
    is left out, with a warning.
    """
    latents_F = interaction.latents_F
    return _possible(
        {
            "coactivation": partial(coactivation_similarity, codes_BL, latents_F),
            "activation": partial(activation_similarity, codes_BL, latents_F),
            "decoder": partial(decoder_similarity, decoder_LX, latents_F),
        }
    )


def _possible(makers: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Those that can be made; the log says why the others cannot."""
    made: dict[str, T] = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except XtalkError as error:
            logger.warning("cluster: without the baseline %s: %s", name, error)
    return made


def cluster_all(
    similarities: Mapping[str, Similarity], method: str, n_latents: int, seed: int
) -> dict[str, Clustering]:
    """The clusters of each similarity by one method, and interaction's sizes filled at random.

    A baseline in which the method finds none is left out, with a warning. Errors: XtalkError where it finds
    none by interaction.
    """
    ours = find_clusters(similarities[INTERACTION], method, n_latents, seed)
    baselines = {
        name: partial(find_clusters, similarity, method, n_latents, seed)
        for name, similarity in similarities.items()
        if name != INTERACTION
    }
    return {INTERACTION: ours, **_possible(baselines), "random": matched_random(ours, seed)}


def trials_of_all(
    clusterings: Mapping[str, Clustering],
    eligible: np.ndarray,
    rates_L: Float[np.ndarray, "L"],
    coactivation: Similarity,
    seed: int,
    per_cluster: int = FEWEST_TRIALS,
) -> dict[Distractors, dict[str, list[Trial]]]:
    """`per_cluster` trials of each cluster of each clustering, with each kind of distractors."""
    return {
        distractors: {
            name: make_trials(
                clustering,
                eligible,
                seed=seed,
                distractors=distractors,
                rates_L=rates_L,
                coactivation=coactivation,
                per_cluster=per_cluster,
            )
            for name, clustering in clusterings.items()
        }
        for distractors in get_args(Distractors)
    }


def judge_all(
    clusterings: Mapping[str, Clustering],
    judge: Judge,
    eligible: np.ndarray,
    rates_L: Float[np.ndarray, "L"],
    coactivation: Similarity,
    seed: int,
    per_cluster: int = FEWEST_TRIALS,
) -> dict[Distractors, dict[str, Judged]]:
    """How the judge does on `per_cluster` trials of each cluster, by kind of distractors and clustering."""
    trials = trials_of_all(clusterings, eligible, rates_L, coactivation, seed, per_cluster)
    return {
        distractors: {name: judge_clusters(some, judge) for name, some in by_name.items()}
        for distractors, by_name in trials.items()
    }

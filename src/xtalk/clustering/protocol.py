"""Do clusters mean something? One protocol for every judge and every way of clustering.

A trial shows up to five members of a cluster and five candidates: a sixth member, held out, and four
distractors from outside the cluster. A judge picks the candidate that belongs. Chance is 0.20. Every cluster
of 3 to 25 members is judged, and the interval is over clusters, since trials of one cluster share members.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from xtalk.clustering.methods import Clustering
from xtalk.clustering.similarity import Similarity
from xtalk.errors import XtalkError
from xtalk.statistics.interval import Interval

SMALLEST, LARGEST = 3, 25  # members of a cluster that is judged
SHOWN, DISTRACTORS = 5, 4
FEWEST_TRIALS = 5
POOL = 12  # latents nearest to the held-out one, of which matched distractors are drawn
RESAMPLES = 1000

Distractors = Literal["any", "rate", "coactivation"]
"""Where distractors come from: any latents outside the cluster; those of the most similar firing rate; or
those that are as co-active with the shown members as the held-out one is, which co-activation cannot tell
from it."""


@dataclass(frozen=True)
class Trial:
    """One question: which of the candidates belongs to the shown members? The answer is candidates[place]."""

    cluster: int
    shown: tuple[int, ...]
    candidates: tuple[int, ...]
    place: int


Judge = Callable[[Trial], float]
"""The credit for a trial: 1 if right, 0 if wrong, 1 / n if the right one is among n that look the same."""


@dataclass(frozen=True)
class Judged:
    """What a judge made of a clustering: accuracy_C of each judged cluster, over `trials` trials in all."""

    clusters_C: Int[np.ndarray, "C"]
    accuracy_C: Float[np.ndarray, "C"]
    trials: int

    def accuracy(self, seed: int) -> Interval:
        """Mean over clusters, with its 95 % bootstrap interval over clusters. Errors: as `bootstrap_mean`."""
        return bootstrap_mean(self.accuracy_C, seed)


def make_trials(
    clustering: Clustering,
    eligible: Int[np.ndarray, "E"],
    *,
    seed: int,
    distractors: Distractors = "any",
    rates_L: Float[np.ndarray, "L"] | None = None,
    coactivation: Similarity | None = None,
    per_cluster: int = FEWEST_TRIALS,
) -> list[Trial]:
    """Trials for every cluster of 3 to 25 eligible members, `per_cluster` each.

    eligible: the latents that the judge can tell anything about. rates_L and coactivation: for distractors
    matched by them. Errors: XtalkError for unknown distractors, or if what they are matched by is missing.
    """
    if distractors not in get_args(Distractors):
        raise XtalkError(
            f"no distractors {distractors!r}; expected one of {', '.join(get_args(Distractors))}"
        )
    needed = {"any": eligible, "rate": rates_L, "coactivation": coactivation}[distractors]
    if needed is None:
        raise XtalkError(f"distractors matched by {distractors}, which was not given")
    rng = np.random.default_rng(seed)
    labels_E = clustering.labels_L[eligible]
    trials: list[Trial] = []
    for cluster in range(clustering.count):
        members, others = eligible[labels_E == cluster], eligible[labels_E != cluster]
        if not SMALLEST <= len(members) <= LARGEST or len(others) < DISTRACTORS:
            continue
        for _ in range(per_cluster):
            held_out, *rest = rng.permutation(members).tolist()
            shown = rest[:SHOWN]
            pool = others
            if distractors == "rate" and rates_L is not None:
                pool = _nearest(np.log(rates_L[others]), float(np.log(rates_L[held_out])), others)
            elif coactivation is not None and distractors == "coactivation":
                with_shown_L = _mean_with(coactivation, shown, len(clustering.labels_L))
                pool = _nearest(with_shown_L[others], float(with_shown_L[held_out]), others)
            candidates = [held_out, *rng.choice(pool, DISTRACTORS, replace=False).tolist()]
            order = rng.permutation(len(candidates))
            place = int(np.flatnonzero(order == 0)[0])
            trials.append(Trial(cluster, tuple(shown), tuple(candidates[i] for i in order), place))
    return trials


def _nearest(
    keys_O: Float[np.ndarray, "O"], key: float, others_O: Int[np.ndarray, "O"]
) -> Int[np.ndarray, "p"]:
    return others_O[np.argsort(np.abs(keys_O - key), kind="stable")[:POOL]]


def _mean_with(similarity: Similarity, shown: Sequence[int], n_latents: int) -> Float[np.ndarray, "L"]:
    """Each latent's mean similarity with the shown ones; 0 for latents that the similarity leaves out."""
    places = np.searchsorted(similarity.latents_F, shown)
    mean_L = np.zeros(n_latents)
    mean_L[similarity.latents_F] = similarity.values_FF[places].sum(0) / len(shown)
    return mean_L


def judge_clusters(trials: Sequence[Trial], judge: Judge) -> Judged:
    """The judge's accuracy by cluster."""
    credit: dict[int, list[float]] = {}
    for trial in trials:
        credit.setdefault(trial.cluster, []).append(judge(trial))
    accuracy_C = np.array([np.mean(values) for values in credit.values()])
    return Judged(np.array(list(credit), dtype=np.int64), accuracy_C, len(trials))


def matched_random(clustering: Clustering, seed: int) -> Clustering:
    """The same latents in clusters of the same sizes, at random."""
    rng, labels_L = np.random.default_rng(seed), clustering.labels_L.copy()
    members = np.flatnonzero(labels_L >= 0)
    labels_L[members] = rng.permutation(labels_L[members])
    return Clustering(labels_L, clustering.converged)


def bootstrap_mean(values_C: Float[np.ndarray, "C"], seed: int) -> Interval:
    """The mean and its 95 % percentile bootstrap interval. Errors: XtalkError for fewer than 2 values."""
    if len(values_C) < 2:
        raise XtalkError(
            f"{len(values_C)} cluster(s) of {SMALLEST} to {LARGEST} members can be judged; an interval needs "
            "2 or more; use another method or more text"
        )
    drawn_RC = np.random.default_rng(seed).integers(0, len(values_C), (RESAMPLES, len(values_C)))
    low, high = np.quantile(values_C[drawn_RC].mean(1), (0.025, 0.975))
    return Interval(float(values_C.mean()), float(low), float(high))

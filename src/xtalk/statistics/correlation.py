"""How well measures of pairs rank what interventions on them do: Spearman correlations with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from xtalk.statistics.bootstrap import interval
from xtalk.statistics.interval import Interval


@dataclass(frozen=True)
class Effects:
    """What interventions on Q pairs did, summed over their occurrences in each of E documents; how many."""

    sums_QE: Float[np.ndarray, "Q E"]
    counts_QE: Float[np.ndarray, "Q E"]

    @property
    def mean_Q(self) -> Float[np.ndarray, "Q"]:
        """The mean effect per occurrence of each pair."""
        return self.sums_QE.sum(1) / self.counts_QE.sum(1)

    def resampled(self, resamples: int, generator: np.random.Generator) -> Float[np.ndarray, "R Q"]:
        """The mean effects with documents drawn anew; a pair of none of those drawn keeps its own."""
        documents = self.sums_QE.shape[1]
        weights_RE = generator.multinomial(documents, np.full(documents, 1 / documents), resamples).astype(
            float
        )
        counts_RQ = weights_RE @ self.counts_QE.T
        means_RQ = weights_RE @ self.sums_QE.T / np.maximum(counts_RQ, 1)
        return np.where(counts_RQ > 0, means_RQ, self.mean_Q)


@dataclass(frozen=True)
class Correlated:
    """Rank correlations of measures with an effect, all with the same resamples.

    By measure: pairs_R, the text's first, then with pairs drawn anew; documents_R, likewise with documents;
    partial_R: as pairs_R, of what ranks leave that those of the control predict (partial correlations).
    """

    pairs_R: dict[str, Float[np.ndarray, "R1"]]
    documents_R: dict[str, Float[np.ndarray, "R1"]]
    partial_R: dict[str, Float[np.ndarray, "R1"]]

    def over_pairs(self, measure: str) -> Interval:
        """The correlation, with its interval over pairs."""
        return interval(self.pairs_R[measure])

    def over_documents(self, measure: str) -> Interval:
        """The correlation, with its interval over documents."""
        return interval(self.documents_R[measure])

    def beyond_control(self, measure: str) -> Interval:
        """The partial correlation, given the control, with its interval over pairs; 0 for the control."""
        return interval(self.partial_R[measure])

    def lead(self, measure: str, baselines: tuple[str, ...]) -> Interval:
        """By how much a measure's correlation exceeds the best of the baselines, interval over pairs."""
        best_R = np.max([np.abs(self.pairs_R[baseline]) for baseline in baselines], axis=0)
        return interval(self.pairs_R[measure] - best_R)


def standard_ranks(x_RQ: Float[np.ndarray, "R Q"]) -> Float[np.ndarray, "R Q"]:
    """Ranks with mean 0 and squares that add up to 1, along the last axis; zeros where all are tied.

    Spearman's correlation is the inner product of two; ties have their mean rank.
    """
    rank = rankdata(x_RQ, axis=-1)
    rank -= rank.mean(-1, keepdims=True)
    norm = np.sqrt((rank**2).sum(-1, keepdims=True))
    return rank / np.where(norm > 0, norm, 1.0)


def rank_correlations(
    measures: Mapping[str, Float[np.ndarray, "Q"]],
    effects: Effects,
    weight_Q: Float[np.ndarray, "Q"],
    control: str,
    resamples: int,
    seed: int,
) -> Correlated:
    """The rank correlation of each measure with the mean effect times a weight per pair.

    control: the measure that partial correlations are given.
    """
    generator = np.random.default_rng(seed)
    effect_Q, pairs = effects.mean_Q * weight_Q, len(weight_Q)
    drawn_RQ = np.vstack([np.arange(pairs), generator.integers(pairs, size=(resamples, pairs))])
    again_RQ = np.vstack([effect_Q, effects.resampled(resamples, generator) * weight_Q])
    effect_RQ, again_RQ = standard_ranks(effect_Q[drawn_RQ]), standard_ranks(again_RQ)
    control_RQ = standard_ranks(measures[control][drawn_RQ])
    by_control_R = (effect_RQ * control_RQ).sum(1)
    pairs_R, documents_R, partial_R = (dict[str, np.ndarray]() for _ in range(3))
    for name, measure_Q in measures.items():
        measure_RQ = standard_ranks(measure_Q[drawn_RQ])
        pairs_R[name] = (measure_RQ * effect_RQ).sum(1)
        documents_R[name] = again_RQ @ measure_RQ[0]
        alike_R = (measure_RQ * control_RQ).sum(1)
        left_R = np.sqrt(((1 - alike_R**2) * (1 - by_control_R**2)).clip(min=0))
        own_R = pairs_R[name] - alike_R * by_control_R
        partial_R[name] = np.where(left_R > 1e-6, own_R, 0) / left_R.clip(1e-6)  # the control leaves nothing
    return Correlated(pairs_R, documents_R, partial_R)


def mean_correlated(blocks: list[Correlated]) -> Correlated:
    """The mean over blocks, resample by resample."""

    def mean(of: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.mean([block[name] for block in of], axis=0) for name in of[0]}

    of = ([b.pairs_R for b in blocks], [b.documents_R for b in blocks], [b.partial_R for b in blocks])
    return Correlated(*map(mean, of))

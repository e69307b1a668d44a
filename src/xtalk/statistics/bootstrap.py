"""Confidence intervals from resampled documents.

Tokens of one document depend on each other, so documents are the unit that is drawn. Every figure here is a
ratio or a difference of sums over tokens, so a resample is a weight per document.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float

from xtalk.errors import XtalkError
from xtalk.statistics.interval import Interval

FEWEST_DOCUMENTS = 8


class Bootstrap:
    """Resamples of `documents` documents, drawn with replacement: the same ones for all that is asked of it.

    Errors: XtalkError for fewer than 8 documents, of which intervals would say nothing.
    """

    def __init__(self, documents: int, resamples: int, seed: int) -> None:
        if documents < FEWEST_DOCUMENTS:
            raise XtalkError(
                f"the evaluation text has {documents} documents; confidence intervals need "
                f"{FEWEST_DOCUMENTS} or more; evaluate on more text"
            )
        self.documents = documents
        self.resamples = resamples
        self.seed = seed

    @cached_property
    def counts_RE(self) -> Float[np.ndarray, "R E"]:
        """How often each resample draws each document."""
        chances = np.full(self.documents, 1 / self.documents)
        counts = np.random.default_rng(self.seed).multinomial(self.documents, chances, self.resamples)
        return counts.astype(np.float64)

    def totals(self, sums_E: Float[np.ndarray, "E"]) -> Float[np.ndarray, "R1"]:
        """Sums over documents: of the text first, then of every resample."""
        return np.concatenate([sums_E.sum(keepdims=True), self.counts_RE @ sums_E])


def interval(statistic_R: Float[np.ndarray, "R1"]) -> Interval:
    """The statistic of the text with the central 95 % of the resamples' (percentile interval)."""
    low, high = np.quantile(statistic_R[1:], (0.025, 0.975))
    return Interval(float(statistic_R[0]), float(low), float(high))


def mean_over(statistics: Sequence[Float[np.ndarray, "R1"]]) -> Float[np.ndarray, "R1"]:
    """Mean of several statistics (such as blocks), resample by resample."""
    return np.mean(np.stack(statistics), axis=0)

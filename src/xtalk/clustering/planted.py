"""Judging clusters by planted truth: which latent belongs to which factor is known."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from sklearn.metrics import adjusted_mutual_info_score

from xtalk.clustering.evidence import Corpus, credit
from xtalk.clustering.methods import Clustering
from xtalk.clustering.protocol import Trial
from xtalk.data.planted import factor_of

PURITY = 0.5  # of a latent's activation on the tokens of one factor: then it belongs to that factor
PLANTED = 0.9  # of a text's tokens that are words of planted text: then it is one, but for document marks


def planted_factors(corpus: Corpus, words: Sequence[str]) -> Int[np.ndarray, "L"] | None:
    """Each latent's factor, as `match_factors` has it; None if the text is not planted. words: by token."""
    factor_V = np.array([factor_of(word) for word in words])
    factor_B = factor_V[corpus.tokens_B]
    if np.mean(factor_B >= 0) < PLANTED:
        return None
    return match_factors(corpus.codes_BL, factor_B, int(factor_V.max()) + 1)


def match_factors(
    codes_BL: sp.csr_array, factor_B: Int[np.ndarray, "B"], factors: int
) -> Int[np.ndarray, "L"]:
    """Each latent's factor: the one whose tokens hold half of its activation or more; else -1.

    factor_B: the factor of each token, -1 for none.
    """
    inside = np.flatnonzero(factor_B >= 0)
    shape = (len(factor_B), factors)
    one_hot_BG = sp.csr_array((np.ones(len(inside)), (inside, factor_B[inside])), shape=shape)
    mass_LG = (codes_BL.T @ one_hot_BG).toarray()
    total_L = np.asarray(codes_BL.sum(0)).ravel()
    pure_L = (total_L > 0) & (mass_LG.max(1) >= PURITY * total_L)
    return np.where(pure_L, mass_LG.argmax(1), -1)


def planted_ami(clustering: Clustering, factor_L: Int[np.ndarray, "L"]) -> float:
    """Adjusted mutual information of clusters and factors over latents that have both; 1: a perfect match.

    0 where no latent has both.
    """
    both = np.flatnonzero((clustering.labels_L >= 0) & (factor_L >= 0))
    if not len(both):
        return 0.0
    return float(adjusted_mutual_info_score(factor_L[both], clustering.labels_L[both]))


class PlantedJudge:
    """Judges by planted truth: the candidate whose factor most of the shown members have.

    eligible: the latents that belong to a factor.
    """

    def __init__(self, factor_L: Int[np.ndarray, "L"]) -> None:
        self._factor_L = factor_L
        self.eligible = np.flatnonzero(factor_L >= 0)

    def __call__(self, trial: Trial) -> float:
        """The credit for a trial."""
        shown, candidates = (self._factor_L[list(latents)] for latents in (trial.shown, trial.candidates))
        return credit((shown[:, None] == candidates).sum(0).astype(np.float64), trial.place)

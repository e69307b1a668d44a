"""The offline judge: it picks the candidate that fires on the same tokens, in the same contexts.

It sees what a reader would: of each latent the 24 strongest activations on held-out documents, as the tokens
themselves and as the tokens up to four places around them. Both are bags of tokens, log counts weighed by
inverse document frequency over latents; the score of a candidate is the mean over shown members of the cosine
of either bag, added up; the highest wins. There is nothing to fit.

Latents that are active together would share contexts for that reason alone. So the shown members are seen on
one half of the documents and the candidates on the other: no place in the text is ever seen on both sides.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from xtalk.clustering.protocol import Trial
from xtalk.clustering.sparse import entries
from xtalk.errors import XtalkError

STRONGEST = 24
WINDOW = 4
FEWEST_DOCUMENTS = 8


@dataclass(frozen=True)
class Corpus:
    """What latents do on a text: codes_BL, sparse, with the token and the document of each of B places."""

    codes_BL: sp.csr_array
    tokens_B: Int[np.ndarray, "B"]
    documents_B: Int[np.ndarray, "B"]
    vocabulary: int

    def where(self, chosen_B: np.ndarray) -> "Corpus":
        """The same places, with no latent active outside `chosen_B`."""
        kept = sp.csr_array(sp.diags_array(chosen_B.astype(np.float64)) @ self.codes_BL)
        kept.eliminate_zeros()
        return Corpus(kept, self.tokens_B, self.documents_B, self.vocabulary)

    def halves(self) -> tuple["Corpus", "Corpus"]:
        """Every other document each. Errors: XtalkError for fewer than 8 documents."""
        documents = np.unique(self.documents_B)
        if len(documents) < FEWEST_DOCUMENTS:
            raise XtalkError(
                f"{len(documents)} documents for the judge; expected {FEWEST_DOCUMENTS} or more that the "
                "pair interactions have not seen; give more held-out text"
            )
        first_B = np.isin(self.documents_B, documents[::2])
        return self.where(first_B), self.where(~first_B)

    @property
    def active_L(self) -> Int[np.ndarray, "L"]:
        """At how many places each latent is active."""
        codes = entries(self.codes_BL)
        return np.bincount(codes.columns, minlength=codes.shape[1])


class OfflineJudge:
    """Judges by shared tokens and contexts on a corpus.

    eligible: the latents with enough activations in either half. Errors: XtalkError as `Corpus.halves`.
    """

    def __init__(self, corpus: Corpus, fewest_active: int = 4) -> None:
        halves = corpus.halves()
        self.eligible = np.flatnonzero(np.minimum(*(half.active_L for half in halves)) >= fewest_active)
        shown, candidates = ([_profile(bag) for bag in _bags(half)] for half in halves)
        self._scores_LL = sp.csr_array(shown[0] @ candidates[0].T + shown[1] @ candidates[1].T)

    def __call__(self, trial: Trial) -> float:
        """The credit for a trial."""
        rows = self._scores_LL[list(trial.shown)]
        scores = np.asarray(rows[:, list(trial.candidates)].sum(0)).ravel()
        return credit(scores, trial.place)


def credit(scores: Float[np.ndarray, "n"], place: int) -> float:
    """What the highest score earns: 1 / (number of equals) if the right place is among them."""
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(place in best) / len(best)


def _bags(corpus: Corpus) -> tuple[sp.csr_array, sp.csr_array]:
    """For each latent, the tokens at its strongest activations, and those around them: counts (L, V)."""
    latents, places = strongest_places(corpus.codes_BL, STRONGEST)
    shape = (len(corpus.active_L), corpus.vocabulary)
    at = _counts(latents, corpus.tokens_B[places], shape)
    around_latents: list[np.ndarray] = []
    around_tokens: list[np.ndarray] = []
    for offset in (*range(-WINDOW, 0), *range(1, WINDOW + 1)):
        near = places + offset
        inside = (near >= 0) & (near < len(corpus.tokens_B))
        inside[inside] = corpus.documents_B[near[inside]] == corpus.documents_B[places[inside]]
        around_latents.append(latents[inside])
        around_tokens.append(corpus.tokens_B[near[inside]])
    return at, _counts(np.concatenate(around_latents), np.concatenate(around_tokens), shape)


def strongest_places(codes_BL: sp.csr_array, count: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Latent and place of each latent's `count` strongest activations, strongest first, by latent."""
    codes = entries(codes_BL)
    order = np.lexsort((codes.rows, -codes.values, codes.columns))
    latents = codes.columns[order]
    kept = np.arange(len(order)) - np.searchsorted(latents, latents) < count
    return latents[kept], codes.rows[order][kept]


def _counts(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)  # repeated entries add up


def _profile(bag_LV: sp.csr_array) -> sp.csr_array:
    """Log counts, weighed by inverse document frequency over latents, of unit norm."""
    bag = entries(bag_LV)
    seen_V = np.bincount(bag.columns, minlength=bag.shape[1])
    described = len(np.unique(bag.rows))
    logs_LV = sp.csr_array((np.log1p(bag.values), (bag.rows, bag.columns)), shape=bag.shape)
    weighed = sp.csr_array(logs_LV @ sp.diags_array(np.log((1 + described) / (1 + seen_V))))
    norms_L = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
    return sp.csr_array(sp.diags_array(1 / np.where(norms_L > 0, norms_L, 1)) @ weighed)

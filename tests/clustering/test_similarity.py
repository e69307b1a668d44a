"""Similarities against loops over pairs, and what is refused."""

import numpy as np
import pytest
import scipy.sparse as sp

from xtalk.clustering import coactivation_similarity, decoder_similarity, interaction_similarity
from xtalk.clustering.similarity import activation_similarity
from xtalk.errors import XtalkError

RNG = np.random.default_rng(0)
CODES_BL = RNG.random((40, 7)) * (RNG.random((40, 7)) < 0.5)
CODES_BL[:, 3] = 0
CODES_BL[2, 3] = 1.0  # active once: too rare to cluster
INTERACTION_LL = RNG.random((7, 7)) * (RNG.random((7, 7)) < 0.6)
np.fill_diagonal(INTERACTION_LL, 0)
ACTIVE_L = (CODES_BL > 0).sum(0)
KEPT = [0, 1, 2, 4, 5, 6]


def cosine(x, y) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def check(similarity, expected) -> None:
    assert similarity.latents_F.tolist() == KEPT
    dense_FF = similarity.values_FF.toarray()
    for a, i in enumerate(KEPT):
        for b, j in enumerate(KEPT):
            assert dense_FF[a, b] == pytest.approx(0 if i == j else expected(i, j)), (i, j)


def test_interaction_is_symmetrised_and_divided_by_both_totals():
    totals_L = INTERACTION_LL.sum(0) + INTERACTION_LL.sum(1)
    both = INTERACTION_LL + INTERACTION_LL.T
    matrix = sp.csr_array(INTERACTION_LL)
    check(interaction_similarity(matrix, ACTIVE_L), lambda i, j: both[i, j])
    check(
        interaction_similarity(matrix, ACTIVE_L, totals_L),
        lambda i, j: both[i, j] / np.sqrt(totals_L[i] * totals_L[j]),
    )


def test_baselines_are_cosines():
    codes, kept = sp.csr_array(CODES_BL), np.array(KEPT)
    active = (CODES_BL > 0).astype(float)
    check(coactivation_similarity(codes, kept), lambda i, j: cosine(active[:, i], active[:, j]))
    check(activation_similarity(codes, kept), lambda i, j: cosine(CODES_BL[:, i], CODES_BL[:, j]))
    decoder_LX = RNG.normal(size=(7, 11))
    check(decoder_similarity(decoder_LX, kept), lambda i, j: max(0.0, cosine(decoder_LX[i], decoder_LX[j])))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.full((7, 7), np.nan), "NaN"), (np.zeros((7, 7)), "no two of them interact")],
)
def test_nan_and_no_pairs_are_refused(matrix, message: str):
    with pytest.raises(XtalkError, match=message):
        interaction_similarity(sp.csr_array(matrix), ACTIVE_L)

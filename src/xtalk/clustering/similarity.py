"""How alike two latents are: by interaction, and by the baselines that it must beat."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from xtalk.clustering.sparse import entries
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix

Normaliser = Literal["total", "none", "co_occurrence", "relative"]

FEWEST_ACTIVE = 8  # tokens at which a latent must be active: of fewer, any similarity is noise


@dataclass(frozen=True)
class Similarity:
    """A symmetric similarity, not negative, without diagonal, between some latents of a crosscoder.

    latents_F: their numbers, ascending; values_FF: sparse, of every pair of them.
    """

    latents_F: Int[np.ndarray, "F"]
    values_FF: sp.csr_array

    def __post_init__(self) -> None:
        F = len(self.latents_F)
        rows_and_columns: Any = self.values_FF.shape
        if rows_and_columns != (F, F):
            raise XtalkError(f"a similarity for other than its {F} latents; expected one of each pair")
        if not np.isfinite(self.values_FF.data).all():
            raise XtalkError("a similarity with NaN or infinity; measure the pair interactions again")
        if F < 2 or not self.values_FF.nnz:
            raise XtalkError(
                f"{F} latents are active at {FEWEST_ACTIVE} tokens or more, and no two of them interact; "
                "clusters need pairs that do; measure more text, or train the crosscoder longer"
            )


def interaction_similarity(
    matrix_LL: sp.csr_array, active_L: Int[np.ndarray, "L"], totals_L: Float[np.ndarray, "L"] | None = None
) -> Similarity:
    """Latents by their symmetrised interaction `matrix_LL`.

    active_L: at how many tokens each latent is active; those active at fewer than 8 are left out. totals_L:
    each latent's interaction with all others: where given, a pair's is divided by the geometric mean of its
    two latents', so that it lies in [0, 1] as a cosine does. Errors: XtalkError for a matrix with NaN, or
    without a pair.
    """
    if not np.isfinite(matrix_LL.data).all():
        raise XtalkError("the pair interactions have NaN or infinity; measure them again")
    symmetric_LL = matrix_LL + matrix_LL.T
    latents_F = _frequent(active_L)
    values_FF = sp.csr_array(symmetric_LL[latents_F][:, latents_F])
    if totals_L is not None:
        roots_F = np.sqrt(np.maximum(totals_L[latents_F], np.finfo(np.float64).tiny))
        values_FF = sp.diags_array(1 / roots_F) @ values_FF @ sp.diags_array(1 / roots_F)
    return Similarity(latents_F, _clean(values_FF))


def normalised_interaction(matrix: PairMatrix, normaliser: Normaliser) -> Similarity:
    """Latents by a pair matrix, summed over its parts.

    total: over the geometric mean of the two latents' whole interaction; the others as in `PairMatrix`.
    Errors: XtalkError for an unknown normaliser.
    """
    if normaliser not in get_args(Normaliser):
        known = ", ".join(get_args(Normaliser))
        raise XtalkError(f"unknown normaliser {normaliser!r}; expected one of {known}")
    if normaliser == "total":
        totals_L = matrix.row_totals() + matrix.column_totals()
        return interaction_similarity(matrix.interactions(), matrix.active_L, totals_L)
    return interaction_similarity(matrix.interactions(normaliser=normaliser), matrix.active_L)


def coactivation_similarity(codes_BL: sp.csr_array, latents_F: Int[np.ndarray, "F"]) -> Similarity:
    """Latents by the cosine of when they are active, activation strength aside."""
    active = entries(codes_BL)
    ones = (np.ones(len(active.rows)), (active.rows, active.columns))
    return activation_similarity(sp.csr_array(ones, shape=active.shape), latents_F)


def activation_similarity(codes_BL: sp.csr_array, latents_F: Int[np.ndarray, "F"]) -> Similarity:
    """Latents by the cosine of their activations over the places of a text."""
    codes_BF = sp.csc_array(codes_BL)[:, latents_F]
    norms_F = np.sqrt(np.asarray(codes_BF.multiply(codes_BF).sum(0)).ravel())
    scale_FF = sp.diags_array(1 / np.where(norms_F > 0, norms_F, 1))
    return Similarity(latents_F, _clean(scale_FF @ (codes_BF.T @ codes_BF) @ scale_FF))


def decoder_similarity(decoder_LX: Float[np.ndarray, "L X"], latents_F: Int[np.ndarray, "F"]) -> Similarity:
    """Latents by the cosine of their decoder directions, all hookpoints end to end; negative ones are 0."""
    rows_FX = decoder_LX[latents_F].astype(np.float64)
    rows_FX /= np.maximum(np.linalg.norm(rows_FX, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return Similarity(latents_F, _clean(sp.csr_array(np.maximum(rows_FX @ rows_FX.T, 0))))


def _frequent(active_L: Int[np.ndarray, "L"]) -> Int[np.ndarray, "F"]:
    return np.flatnonzero(active_L >= FEWEST_ACTIVE)


def _clean(values_FF: Any) -> sp.csr_array:
    """The same without diagonal and stored zeros, symmetric to the last bit, which products may not be."""
    pairs = entries((values_FF + values_FF.T) / 2)
    kept = pairs.rows != pairs.columns
    listed = (pairs.values[kept], (pairs.rows[kept], pairs.columns[kept]))
    return sp.csr_array(listed, shape=pairs.shape)

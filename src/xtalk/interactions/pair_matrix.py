"""The pair interactions of a text as sparse matrices: by part, summed, normalised, with standard errors."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array

from xtalk.errors import XtalkError
from xtalk.files import replacing
from xtalk.interactions.pair_rows import Rows
from xtalk.parsing import parsed_json

Normaliser = Literal["none", "co_occurrence", "relative"]
SUM = "sum"
FORMAT = "xtalk.pairs/2"
_RECORD = {"parts": list, "tokens": int, "documents": int, "source": str}
_ARRAYS = {
    "start": torch.int64,
    "column": torch.int32,
    "together": torch.int32,
    "sums": torch.float64,
    "errors": torch.float32,
    "active": torch.int64,
    "totals": torch.float64,
    "row_sums": torch.float64,
    "column_sums": torch.float64,
}


@dataclass(frozen=True, eq=False)
class PairMatrix:
    """I(i, j) of the listed pairs, row i the dominant latent, and exact totals over all pairs.

    parts: what was measured apart, such as the blocks; "sum" stands for their sum. start, column: the pairs
    (E of them), rows of which are `column[start[i]:start[i + 1]]`; together: how often both were active;
    sums: over the tokens; errors: standard errors of the mean over tokens, last of the sum over parts;
    active: tokens at which each latent is active; totals: over all pairs, those of a latent with itself (at
    an MLP, the dominant contributions) too; row_sums, column_sums: over all pairs, listed or not. source:
    the hash of the weights that it was measured of, or "".
    """

    n_latents: int
    parts: tuple[str, ...]
    tokens: int
    documents: int
    start_L: Int[np.ndarray, "L1"]
    column_E: Int[np.ndarray, "E"]
    together_E: Int[np.ndarray, "E"]
    sums_EP: Float[np.ndarray, "E P"]
    errors_EQ: Float[np.ndarray, "E Q"]
    active_L: Int[np.ndarray, "L"]
    totals_P: Float[np.ndarray, "P"]
    row_sums_LP: Float[np.ndarray, "L P"]
    column_sums_LP: Float[np.ndarray, "L P"]
    source: str = ""

    def interactions(
        self, part: str = SUM, normaliser: Normaliser = "none", *, symmetric: bool = False
    ) -> csr_array:
        """I(i, j) of the listed pairs, row i the dominant latent; `symmetric`: (I + I^T) / 2.

        none: mean over tokens; over all pairs that adds up to the mean T. co_occurrence: mean over the times
        that both are active. relative: over the mean of sum_k ||W_out[k]|| sum_i |p_ki|, so that all pairs
        add up to at most 1: the part of all contributions that is not dominant. Errors: XtalkError for an
        unknown part or normaliser.
        """
        values_E = self._of(self.sums_EP, part) / self._divisor(part, normaliser)
        matrix = self._csr(values_E)
        return csr_array((matrix + matrix.T) / 2) if symmetric else matrix

    def standard_errors(self, part: str = SUM, normaliser: Normaliser = "none") -> csr_array:
        """The standard errors of `interactions`, documents drawn; the normaliser counts as known.

        Of the ratio of sums over documents, sum_e s_e over sum_e n_e tokens: the root of
        E/(E-1) sum_e (s_e - R n_e)^2, over the tokens. NaN for a single document.
        """
        column = len(self.parts) if part == SUM else self._index(part)
        scale = self.tokens / self._divisor(part, normaliser)
        return self._csr(self.errors_EQ[:, column].astype(np.float64) * scale)

    def co_active(self) -> csr_array:
        """How often both latents of each listed pair were active together."""
        return self._csr(self.together_E.astype(np.int64))

    def row_totals(self, part: str = SUM) -> Float[np.ndarray, "L"]:
        """What each latent's row adds up to over all pairs, listed or not; mean over tokens."""
        return self._of(self.row_sums_LP, part) / self.tokens

    def column_totals(self, part: str = SUM) -> Float[np.ndarray, "L"]:
        """What each latent's column adds up to over all pairs, listed or not; mean over tokens."""
        return self._of(self.column_sums_LP, part) / self.tokens

    def total(self, part: str = SUM) -> float:
        """The interaction of all pairs, mean over tokens: at an MLP, the mean T."""
        return float(self.row_totals(part).sum())

    def kept(self, part: str = SUM) -> float:
        """The part of all interaction that the listed pairs hold; 1 where there is none."""
        everything = float(self._of(self.row_sums_LP, part).sum())
        return float(self._of(self.sums_EP, part).sum()) / everything if everything else 1.0

    def save(self, path: Path) -> None:
        """Write the matrix to a safetensors file."""
        arrays = (
            *(self.start_L, self.column_E, self.together_E, self.sums_EP, self.errors_EQ),
            *(self.active_L, self.totals_P, self.row_sums_LP, self.column_sums_LP),
        )
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array))
            for name, array in zip(_ARRAYS, arrays, strict=True)
        }
        record = {
            "parts": self.parts,
            "tokens": self.tokens,
            "documents": self.documents,
            "source": self.source,
        }
        with replacing(path) as partial:  # one key: safetensors writes several in any order
            save_file(tensors, partial, {FORMAT: json.dumps(record)})

    @staticmethod
    def load(path: Path, source: str | None = None) -> "PairMatrix":
        """Read what `save` wrote. Errors: XtalkError for anything else, or if not measured of `source`."""
        tensors, record = _read(path)
        _check(path, tensors, len(record["parts"]))
        matrix = PairMatrix(
            len(tensors["active"]),
            tuple(record["parts"]),
            record["tokens"],
            record["documents"],
            *(tensors[name].numpy() for name in _ARRAYS),
            source=record["source"],
        )
        if source is not None and matrix.source != source:
            raise XtalkError(
                f"{path} was measured of other weights ({matrix.source[:12] or 'unnamed'}, not "
                f"{source[:12]}); measure the interactions of this crosscoder"
            )
        return matrix

    def _index(self, part: str) -> int:
        if part not in self.parts:
            raise XtalkError(f"no part {part!r} in the pair matrix; it has {SUM}, {', '.join(self.parts)}")
        return self.parts.index(part)

    def _of(self, array_XP: np.ndarray, part: str) -> Any:
        return array_XP.sum(-1) if part == SUM else array_XP[..., self._index(part)]

    def _divisor(self, part: str, normaliser: Normaliser) -> Any:
        if normaliser == "none":
            return self.tokens
        if normaliser == "co_occurrence":
            return self.together_E
        if normaliser == "relative":
            return float(self._of(self.totals_P, part)) or 1.0
        raise XtalkError(
            f"unknown normaliser {normaliser!r}; expected one of {', '.join(get_args(Normaliser))}"
        )

    def _csr(self, values_E: np.ndarray) -> csr_array:
        shape = (self.n_latents, self.n_latents)
        return csr_array((values_E, self.column_E, self.start_L), shape=shape)


def combine(matrices: Mapping[str, PairMatrix]) -> PairMatrix:
    """One matrix of several sites (MLPs, attention, norms), which are its parts.

    The sites' units differ, so each is divided by all terms of its own (the relative normaliser): a site's
    pairs add up to at most 1, all pairs to at most the number of sites. A pair is listed if some site lists
    it; `co_active` counts its terms at all sites; the standard error of the sum is its upper bound, the sum
    of the sites'. Errors: XtalkError for none, or for matrices of different crosscoders or texts.
    """
    measured_of = {(m.n_latents, m.source, m.tokens, m.documents) for m in matrices.values()}
    if len(measured_of) != 1:
        raise XtalkError(
            f"pair matrices of {len(matrices)} sites that are not of one crosscoder and text; expected one "
            "or more that were measured of the same weights on the same text"
        )
    [(L, source, tokens, documents)] = measured_of
    sites = list(matrices.values())
    keys = [np.repeat(np.arange(L), np.diff(m.start_L)) * L + m.column_E.astype(np.int64) for m in sites]
    keys_E = np.unique(np.concatenate(keys))
    together_E = np.zeros(len(keys_E), np.int32)
    sums_EP, errors_EQ = np.zeros((len(keys_E), len(sites))), np.zeros((len(keys_E), len(sites) + 1))
    scales_P = [tokens / (float(m.totals_P.sum()) or 1.0) for m in sites]
    for s, (matrix, key, scale) in enumerate(zip(sites, keys, scales_P, strict=True)):
        place = np.searchsorted(keys_E, key)
        together_E[place] += matrix.together_E
        sums_EP[place, s] = matrix.sums_EP.sum(1) * scale
        errors_EQ[place, s] = matrix.errors_EQ[:, -1] * scale
    errors_EQ[:, -1] = errors_EQ.sum(1)

    def by_site(arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack([a.sum(-1) * scale for a, scale in zip(arrays, scales_P, strict=True)], axis=-1)

    return PairMatrix(
        L,
        tuple(matrices),
        tokens,
        documents,
        np.concatenate([[0], np.cumsum(np.bincount(keys_E // L, minlength=L))]),
        (keys_E % L).astype(np.int32),
        together_E,
        sums_EP,
        errors_EQ.astype(np.float32),
        sites[0].active_L,
        by_site(m.totals_P for m in sites),
        by_site(m.row_sums_LP for m in sites),
        by_site(m.column_sums_LP for m in sites),
        source,
    )


def matrix_of(
    rows: list[Rows],
    n_latents: int,
    parts: tuple[str, ...],
    *,
    tokens: int,
    documents: int,
    squared_lengths: float,
    active_L: Int[np.ndarray, "L"],
    totals_P: Float[np.ndarray, "P"],
    top: int | None,
) -> PairMatrix:
    """The matrix of accumulated rows (see `PairInteractions.result`); squared_lengths: of the documents.

    The list of rows is emptied on the way, so that rows and matrix are never both whole in memory.
    """
    least_L = None if top is None else _column_least(rows, n_latents, top)
    kept = [_kept(some, top, least_L) for some in rows]
    E, P = sum(map(np.count_nonzero, kept)), len(parts)
    column_E, together_E = np.empty((2, E), np.int32)
    sums_EP, errors_EQ = np.empty((E, P)), np.empty((E, P + 1), np.float32)
    row_sums_LP, column_sums_LP = np.zeros((2, n_latents, P))
    counts_L, end = np.zeros(n_latents, np.int64), 0
    for keep_E in kept:
        some = rows.pop(0)
        R, row = len(some.start) - 1, some.row
        mine = slice(some.first, some.first + R)
        counts_L[mine] = np.bincount(row[keep_E], minlength=R)
        row_sums_LP[mine] = _sums(row, some.sums, R)
        column_sums_LP += _sums(some.column, some.sums, n_latents)
        at = slice(end, end := end + int(np.count_nonzero(keep_E)))
        column_E[at], together_E[at] = some.column[keep_E], some.together[keep_E]
        sums_EP[at], moments = some.sums[keep_E], (some.squares[keep_E], some.cross[keep_E])
        errors_EQ[at] = _standard_errors(sums_EP[at], *moments, tokens, documents, squared_lengths)
    start_L = np.concatenate([[0], np.cumsum(counts_L)])
    listed = (start_L, column_E, together_E, sums_EP, errors_EQ)
    sums = (active_L.copy(), totals_P.copy(), row_sums_LP, column_sums_LP)
    return PairMatrix(n_latents, parts, tokens, documents, *listed, *sums)


def _sums(index_E: np.ndarray, values_EP: np.ndarray, size: int) -> np.ndarray:
    """The values of each index, added up."""
    return np.stack([np.bincount(index_E, values_E, size) for values_E in values_EP.T], axis=1)


def _standard_errors(
    sums_EP: np.ndarray,
    squares_EQ: np.ndarray,
    cross_EP: np.ndarray,
    tokens: int,
    documents: int,
    squared: float,
) -> np.ndarray:
    """Of sums over documents per token, by part and of the sum over parts."""
    if documents < 2:
        return np.full(squares_EQ.shape, np.nan, np.float32)
    with_sum = [
        np.concatenate([a, a.sum(1, keepdims=True)], axis=1) for a in (sums_EP, cross_EP.astype(float))
    ]
    mean_EQ, cross_EQ = with_sum[0] / tokens, with_sum[1]
    variance_EQ = squares_EQ - 2 * mean_EQ * cross_EQ + mean_EQ**2 * squared
    factor = documents / (documents - 1)
    return (np.sqrt(factor * variance_EQ.clip(min=0)) / tokens).astype(np.float32)


def _kept(some: Rows, top: int | None, column_least_L: np.ndarray | None) -> Bool[np.ndarray, "E"]:
    """Which pairs of these rows are above 0 and among the `top` largest of their row or column."""
    if top is None or column_least_L is None:
        return np.ones(len(some.column), dtype=bool)
    value_E = some.sums.sum(1)
    row_least_R = np.zeros(len(some.start) - 1)
    for i in np.flatnonzero(np.diff(some.start) > top):
        row_least_R[i] = np.partition(value_E[some.start[i] : some.start[i + 1]], -top)[-top]
    return (value_E > 0) & (value_E >= np.minimum(row_least_R[some.row], column_least_L[some.column]))


def _column_least(rows: Sequence[Rows], n_latents: int, top: int) -> Float[np.ndarray, "L"]:
    """The `top`-largest value of every column, 0 where no more than that are above 0; by set of rows."""
    largest_LT = np.zeros((n_latents, top))
    for some in rows:
        dense_LR = np.zeros((n_latents, len(some.start) - 1))
        dense_LR[some.column, some.row] = some.sums.sum(1)
        largest_LT = np.partition(np.concatenate([largest_LT, dense_LR], axis=1), -top)[:, -top:]
    return largest_LT[:, 0]


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except FileNotFoundError:
        raise XtalkError(f"no pair matrix {path}; measure it with xtalk interact") from None
    except (OSError, SafetensorError) as error:
        raise XtalkError(f"{path} cannot be read: {error}; measure it again with xtalk interact") from error
    record: dict[str, Any] = {}
    try:
        record = parsed_json(metadata[FORMAT])
        found = {name: type(value) for name, value in record.items()}
    except (KeyError, ValueError, AttributeError):
        found = {}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    if found != _RECORD or dtypes != _ARRAYS or not all(isinstance(part, str) for part in record["parts"]):
        raise XtalkError(f"{path} is no pair matrix ({FORMAT}); measure it again with xtalk interact")
    return tensors, record


def _check(path: Path, tensors: Mapping[str, torch.Tensor], P: int) -> None:
    """Refuse arrays that do not fit together or hold no numbers."""
    L, E = len(tensors["active"]), len(tensors["column"])
    shapes = {
        "start": (L + 1,),
        "together": (E,),
        "sums": (E, P),
        "errors": (E, P + 1),
        "totals": (P,),
        "row_sums": (L, P),
        "column_sums": (L, P),
    }
    start, column = tensors["start"], tensors["column"]
    if not (
        all(tuple(tensors[name].shape) == shape for name, shape in shapes.items())
        and start[0] == 0
        and start[-1] == E
        and bool((start.diff() >= 0).all())
        and bool(((column >= 0) & (column < L)).all())
    ):
        raise XtalkError(f"{path} is damaged: its arrays do not fit together; measure it again")
    for name in ("sums", "totals", "row_sums", "column_sums"):
        if not bool(tensors[name].isfinite().all()):
            raise XtalkError(f"{path} holds NaN or infinite interactions; measure it again")

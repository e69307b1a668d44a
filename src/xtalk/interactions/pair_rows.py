"""Sparse rows of a pair matrix, and the hot loop that adds tokens to them.

One row at a time is spread over an array as long as there are latents, what is new is added to it, and what
it then holds is gathered again (Gustavson's algorithm for sparse products): no sorting, no hashing, and sums
that do not depend on the number of threads.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtalk.compiling import compiled

_Array = NDArray[Any]


@dataclass(frozen=True)
class Events:
    """Groups of ordered pairs with a value for each of P parts: every row latent with every column latent.

    A group is a token (or a pair of tokens) with its active latents. Row latent e belongs to group
    `group[e]`; its values, one per column latent of the group, start at `offset[e]`.

    row, group, offset: per row latent; column: the groups' column latents, those of group g from
    `column_start[g]` on; values: (P, pairs); document: per group, never falling.
    """

    row: _Array
    group: _Array
    offset: _Array
    column: _Array
    column_start: _Array
    values: _Array
    document: _Array

    def split(self, group: int) -> tuple["Events", "Events"]:
        """The groups before `group`, and the others; the values are copies, so that neither holds all."""
        first = int(np.searchsorted(self.group, group))
        pair = int(self.offset[first]) if first < len(self.offset) else self.values.shape[1]
        column = int(self.column_start[group])
        before = Events(
            self.row[:first],
            self.group[:first],
            self.offset[:first],
            self.column[:column],
            self.column_start[: group + 1],
            self.values[:, :pair].copy(),
            self.document[:group],
        )
        after = Events(
            self.row[first:],
            self.group[first:] - group,
            self.offset[first:] - pair,
            self.column[column:],
            self.column_start[group:] - column,
            self.values[:, pair:].copy(),
            self.document[group:],
        )
        return before, after


def events_of(
    rows_BK: _Array,
    row_active_BK: _Array,
    columns_BK: _Array,
    column_active_BK: _Array,
    values_PBKK: _Array,
    document_B: _Array,
) -> Events:
    """Events from padded arrays: what is not active is left out."""
    row_counts_B, column_counts_B = row_active_BK.sum(1), column_active_BK.sum(1)
    group = np.repeat(np.arange(len(rows_BK)), row_counts_B)
    sizes = column_counts_B[group]
    together_BKK = row_active_BK[:, :, None] & column_active_BK[:, None]
    return Events(
        rows_BK[row_active_BK],
        group,
        np.cumsum(sizes) - sizes,
        columns_BK[column_active_BK].astype(np.int32),
        np.concatenate([[0], np.cumsum(column_counts_B)]),
        values_PBKK[:, together_BKK],
        document_B,
    )


def joined(parts: list[Events]) -> Events:
    """Events one after another."""
    if len(parts) == 1:
        return parts[0]
    groups = np.cumsum([0, *(len(part.document) for part in parts)])
    pairs = np.cumsum([0, *(part.values.shape[1] for part in parts)])
    columns = np.cumsum([0, *(len(part.column) for part in parts)])
    starts = [part.column_start[:-1] + shift for part, shift in zip(parts, columns, strict=False)]
    return Events(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.group + shift for part, shift in zip(parts, groups, strict=False)]),
        np.concatenate([part.offset + shift for part, shift in zip(parts, pairs, strict=False)]),
        np.concatenate([part.column for part in parts]),
        np.concatenate([*starts, columns[-1:]]),
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.document for part in parts]),
    )


@dataclass(frozen=True)
class Rows:
    """Rows first, first + 1, ... of a pair matrix: the pairs seen so far, by row and then column.

    For every pair (E of them): together (E), how often its latents met; sums (E, P); and over documents, of
    their sums s_e and lengths n_e: squares (E, P + 1), of s_e^2 (last of the sum over parts), and
    cross (E, P), of s_e n_e. The moments are float32: only standard errors come from them.
    """

    first: int
    start: _Array
    column: _Array
    together: _Array
    sums: _Array
    squares: _Array
    cross: _Array

    @property
    def row(self) -> _Array:
        """Of every pair the row, counted from `first`."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    @staticmethod
    def empty(first: int, rows: int, parts: int) -> "Rows":
        """Rows without pairs."""
        return Rows(first, np.zeros(rows + 1, np.int64), *_pair_arrays(0, parts))

    def add(self, events: Events, order: _Array, row_start: _Array, lengths: _Array, latents: int) -> "Rows":
        """These rows with the events added.

        order: the events' row latents by row, those of latent i from `row_start[i]` on; lengths: of each
        document.
        """
        rows, parts = len(self.start) - 1, self.sums.shape[1]
        mine = order[row_start[self.first] : row_start[self.first + rows]]
        if not len(mine):
            return self
        most = min(
            rows * latents, len(self.column) + int(np.diff(events.column_start)[events.group[mine]].sum())
        )
        start, made = np.zeros_like(self.start), _pair_arrays(most, parts)
        _merge(
            self.first,
            order,
            row_start,
            events.group,
            events.offset,
            events.column,
            events.column_start,
            events.values,
            events.document,
            lengths,
            (self.start, self.column, self.together, self.sums, self.squares, self.cross),
            (start, *made),
            latents,
        )
        kept = _pair_arrays(int(start[-1]), parts)
        for array, longer in zip(kept, made, strict=True):
            array[:] = longer[: len(array)]
        return Rows(self.first, start, *kept)


def _pair_arrays(size: int, parts: int) -> list[_Array]:
    """Empty arrays for `size` pairs: column, together, sums, squares and cross.

    Cut from one allocation: a large one goes back to the system when it is freed, while smaller ones would
    stay with the process as holes.
    """
    shapes = [((size, parts), np.float64), ((size, parts + 1), np.float32), ((size, parts), np.float32)]
    shapes += [((size,), np.int32)] * 2
    ends = np.cumsum([0, *(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in shapes)])
    memory = np.empty(ends[-1], np.uint8)
    sums, squares, cross, column, together = (
        memory[start:end].view(kind).reshape(shape)
        for (shape, kind), (start, end) in zip(shapes, pairwise(ends), strict=True)
    )
    return [column, together, sums, squares, cross]


@compiled()
def _close(
    j: int, length: _Array, open_LP: _Array, sums_LP: _Array, squares_LQ: _Array, cross_LP: _Array
) -> None:
    """Add a finished document's sums of column j to the moments."""
    parts = open_LP.shape[1]
    whole = 0.0
    for p in range(parts):
        s = open_LP[j, p]
        whole += s
        sums_LP[j, p] += s
        squares_LQ[j, p] += s * s
        cross_LP[j, p] += s * length
        open_LP[j, p] = 0.0
    squares_LQ[j, parts] += whole * whole


@compiled()
def _merge(
    first: int,
    order: _Array,
    row_start: _Array,
    group: _Array,
    offset: _Array,
    column: _Array,
    column_start: _Array,
    values: _Array,
    document: _Array,
    lengths: _Array,
    old: tuple[_Array, ...],
    new: tuple[_Array, ...],
    latents: int,
) -> None:
    old_start, old_column, old_together, old_sums, old_squares, old_cross = old
    new_start, new_column, new_together, new_sums, new_squares, new_cross = new
    parts = values.shape[0]
    together_L = np.zeros(latents, np.int32)
    sums_LP, open_LP, cross_LP = np.zeros((3, latents, parts))
    squares_LQ = np.zeros((latents, parts + 1))
    document_L = np.full(latents, -2)  # the document that is open; -1: none is; -2: no such pair yet
    seen = np.empty(latents, np.int64)
    size = 0
    for row in range(len(old_start) - 1):
        i, n = first + row, 0
        for e in range(old_start[row], old_start[row + 1]):
            j = old_column[e]
            seen[n], document_L[j] = j, -1
            n += 1
            together_L[j] = old_together[e]
            sums_LP[j], squares_LQ[j], cross_LP[j] = old_sums[e], old_squares[e], old_cross[e]
        for o in range(row_start[i], row_start[i + 1]):
            g, start = group[order[o]], offset[order[o]] - column_start[group[order[o]]]
            d = document[g]
            for c in range(column_start[g], column_start[g + 1]):
                j = column[c]
                if j == i:
                    continue
                if document_L[j] != d:
                    if document_L[j] == -2:
                        seen[n] = j
                        n += 1
                        together_L[j] = 0
                        sums_LP[j], squares_LQ[j], cross_LP[j] = 0.0, 0.0, 0.0
                    elif document_L[j] >= 0:
                        _close(j, lengths[document_L[j]], open_LP, sums_LP, squares_LQ, cross_LP)
                    document_L[j] = d
                together_L[j] += 1
                for p in range(parts):
                    open_LP[j, p] += values[p, start + c]
        for j in np.sort(seen[:n]):
            if document_L[j] >= 0:
                _close(j, lengths[document_L[j]], open_LP, sums_LP, squares_LQ, cross_LP)
            document_L[j] = -2
            new_column[size], new_together[size] = j, together_L[j]
            new_sums[size], new_squares[size], new_cross[size] = sums_LP[j], squares_LQ[j], cross_LP[j]
            size += 1
        new_start[row + 1] = size

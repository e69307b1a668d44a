"""The entries of a sparse matrix as plain arrays."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int, Num


class Entries(NamedTuple):
    """Rows, columns and values of the entries that are not 0, by row, and the shape."""

    rows: Int[np.ndarray, "n"]
    columns: Int[np.ndarray, "n"]
    values: Num[np.ndarray, "n"]
    shape: tuple[int, int]


def entries(matrix: sp.sparray) -> Entries:
    """The entries of a matrix, repeated ones added up."""
    coo: Any = sp.coo_array(sp.csr_array(matrix))
    kept = coo.data != 0
    rows, columns = (index[kept].astype(np.int64) for index in (coo.row, coo.col))
    return Entries(rows, columns, coo.data[kept], coo.shape)

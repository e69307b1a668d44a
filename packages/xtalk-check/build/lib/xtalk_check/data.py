"""What the theorems about data share: the data, norms, and how far phi bends."""

import struct
from collections.abc import Iterable
from hashlib import sha256

from flint import arb, arb_mat

from xtalk_check.activations import Activation
from xtalk_check.errors import Rejected
from xtalk_check.reading import Weights
from xtalk_check.work import Row, Work


def data(weights: Weights, name: str, digest: str) -> arb_mat:
    """A matrix of any shape, whose values have that SHA-256 as little-endian float32."""
    (height, width), values = weights.values(name, None, None)
    if sha256(struct.pack(f"<{len(values)}f", *values)).hexdigest() != digest:
        raise Rejected("the specification is about other data")
    return arb_mat(height, width, values)


def curvature(phi: Activation, over: arb) -> arb:
    """The range of phi'' over a ball; refuses an activation function with a kink."""
    bend = phi.ranges(over).curvature
    if bend is None:
        raise Rejected("the theorems about data need an activation function without kinks")
    return bend


def dot(left: Iterable[arb], right: Iterable[arb]) -> arb:
    """The sum of products."""
    return sum((a * b for a, b in zip(left, right, strict=True)), arb(0))


def root(square: arb) -> arb:
    """An upper bound of the root of a number that is not negative."""
    return square.upper().max(arb(0)).sqrt()


def magnitude(row: Row) -> arb:
    """An upper bound of the Euclidean norm."""
    return root(dot(row, row))


def repeated(count: int, row: Row) -> arb_mat:
    """A matrix of `count` equal rows."""
    return arb_mat(count, len(row), row * count)


def scaled(matrix: list[Row], scales: Row, work: Work) -> arb_mat:
    """The matrix with each column multiplied by its scale; one multiply-add for each entry."""
    work.spend(len(matrix) * len(scales))
    return arb_mat([[entry * scale for entry, scale in zip(row, scales, strict=True)] for row in matrix])

"""Ball arithmetic, and the count of what it costs.

A ball (`arb`) encloses a real number. A comparison of balls is true only where it holds for all numbers that
they enclose, so it fails in doubt. An operation on balls encloses every result of the numbers in them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, reduce

from flint import arb, arb_mat

from xtalk_check.errors import Rejected

PRECISION = 64  # bits of the centres; every rounding error goes into the radius

Row = list[arb]


@dataclass
class Work:
    """The counted length of a proof: its counters go up where the work is done, and nowhere else."""

    multiply_adds: int = 0
    evaluations: int = 0
    reads: int = 0

    def product(self, left: arb_mat, right: arb_mat) -> arb_mat:
        """The matrix product; one multiply-add for each of its rows x inner x columns terms."""
        if left.ncols() != right.nrows():
            raise Rejected(f"a product of {left.ncols()} columns with {right.nrows()} rows")
        self.multiply_adds += left.nrows() * left.ncols() * right.ncols()
        return left * right

    def evaluate(self, function: Callable[[arb], arb], points: Iterable[arb]) -> list[arb]:
        """A non-linear function at each point; one evaluation each."""
        values = [function(point) for point in points]
        self.evaluations += len(values)
        return values


def hull(balls: Iterable[arb]) -> arb:
    """A ball that encloses all the balls, of which there is at least one."""
    return reduce(arb.union, balls)


def floor(ball: arb, bits: int) -> int:
    """The largest integer z with z / 2^bits <= every number in the ball, or one smaller.

    Refuses a ball that is not finite.
    """
    integer = (ball.lower() * _unit(bits)).lower().floor().unique_fmpz()
    if integer is None:
        raise Rejected("a bound is not a finite number")
    return int(integer)


@cache
def _unit(bits: int) -> arb:
    return arb(2) ** bits


def smallest(balls: Iterable[arb]) -> arb:
    """A ball around the least of the numbers that the balls enclose, of which there is at least one."""
    return reduce(arb.min, balls)


def dot(left: Iterable[arb], right: Iterable[arb]) -> arb:
    """The sum of products."""
    return sum((a * b for a, b in zip(left, right, strict=True)), arb(0))


def root(square: arb) -> arb:
    """An upper bound of the root of a number that is not negative."""
    return square.upper().max(arb(0)).sqrt()


def magnitude(row: Row) -> arb:
    """An upper bound of the Euclidean norm."""
    return root(dot(row, row))


def rows(matrix: arb_mat) -> list[Row]:
    """The matrix as a list of its rows."""
    entries, width = matrix.entries(), matrix.ncols()
    return [entries[start : start + width] for start in range(0, len(entries), width)]


def repeated(count: int, row: Row) -> arb_mat:
    """A matrix of `count` equal rows."""
    return arb_mat(count, len(row), row * count)


def scaled(matrix: list[Row], scales: Row, work: Work) -> arb_mat:
    """The matrix with each column multiplied by its scale; one multiply-add for each entry."""
    work.multiply_adds += len(matrix) * len(scales)
    return arb_mat([[entry * scale for entry, scale in zip(row, scales, strict=True)] for row in matrix])

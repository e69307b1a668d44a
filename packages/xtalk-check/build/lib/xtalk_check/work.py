"""Ball arithmetic, and the count of what it costs.

A ball (`arb`) encloses a real number. A comparison of balls is true only where it holds for all numbers that
they enclose, so it fails in doubt. An operation on balls encloses every result of the numbers in them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, reduce

from flint import arb, arb_mat

from xtalk_check.errors import OverBudget, Rejected

PRECISION = 64  # bits of the centres; every rounding error goes into the radius
EVALUATION = 10  # units of work, as one takes the time of some ten multiply-adds

Row = list[arb]


@dataclass(frozen=True)
class Budget:
    """What a check may cost; one that would cost more is refused before the work is done.

    A unit of work is a multiply-add, an integer that is read, or a step; an evaluation is EVALUATION units.
    """

    work: int = 5_000_000_000
    memory: int = 1 << 24  # balls that are held at once, some 150 bytes each


@dataclass
class Work:
    """The counted length of a proof, and the budget for it: counters go up just before the work is done.

    Every product and every quotient of balls counts as a multiply-add.
    """

    multiply_adds: int = 0
    evaluations: int = 0
    reads: int = 0
    steps: int = 0  # what takes time and is no arithmetic: not part of the length
    budget: Budget = field(default_factory=Budget)
    held: int = 0  # balls

    def spend(self, multiply_adds: int = 0, evaluations: int = 0, reads: int = 0, steps: int = 0) -> None:
        """Count what is done next, if the budget allows it."""
        self.multiply_adds += multiply_adds
        self.evaluations += evaluations
        self.reads += reads
        self.steps += steps
        self.plan(0, "the check")

    def plan(self, units: int, what: str) -> None:
        """Refuse what is to take that many units of work, at least, if the budget does not allow it."""
        units += self.multiply_adds + EVALUATION * self.evaluations + self.reads + self.steps
        if units > self.budget.work:
            raise OverBudget(
                f"{what} takes {_written(units)} units of work or more; the budget is "
                f"{_written(self.budget.work)}; raise it with --budget"
            )

    def fit(self, balls: int, what: str) -> None:
        """Refuse that many balls, beside those that are held, if the budget does not allow them."""
        if self.held + balls > self.budget.memory:
            raise OverBudget(
                f"{what} takes the memory of {_written(self.held + balls)} balls or more; the budget is "
                f"{_written(self.budget.memory)}; raise it with --memory"
            )

    def hold(self, balls: int, what: str) -> None:
        """Count balls that stay for the rest of the check, if the budget allows them."""
        self.fit(balls, what)
        self.held += balls

    def product(self, left: arb_mat, right: arb_mat) -> arb_mat:
        """The matrix product; one multiply-add for each of its rows x inner x columns terms."""
        if left.ncols() != right.nrows():
            raise Rejected(f"a product of {left.ncols()} columns with {right.nrows()} rows")
        self.fit(left.nrows() * right.ncols(), "a product of matrices")
        self.spend(left.nrows() * left.ncols() * right.ncols())
        return left * right

    def evaluate(self, function: Callable[[arb], arb], points: Iterable[arb]) -> list[arb]:
        """A non-linear function at each point; one evaluation each."""
        points = list(points)
        self.spend(evaluations=len(points))
        return [function(point) for point in points]


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


def rows(matrix: arb_mat) -> list[Row]:
    """The matrix as a list of its rows."""
    entries, width = matrix.entries(), matrix.ncols()
    return [entries[start : start + width] for start in range(0, len(entries), width)]


def _written(count: int) -> str:
    """A count for a message: in full, or as a power of ten."""
    return f"{count:,}" if count < 10**15 else f"10^{len(str(count)) - 1}"

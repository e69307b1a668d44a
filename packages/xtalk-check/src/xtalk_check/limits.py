"""What a check may cost: this file can refuse a check before it is done, and can do nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, prod
from typing import NamedTuple

from xtalk_check.errors import OverBudget

EVALUATION = 10  # units of work, as one takes the time of some ten multiply-adds


@dataclass(frozen=True)
class Budget:
    """What a check may cost; one that would cost more is refused before the work is done.

    A unit of work is a multiply-add, an integer that is read, or a step; an evaluation is EVALUATION units.
    """

    work: int = 5_000_000_000
    memory: int = 1 << 24  # balls that are held at once, some 150 bytes each

    def allow(self, units: int, what: str) -> None:
        """Refuse what takes that many units of work, at least, if they are too many."""
        if units > self.work:
            raise OverBudget(
                f"{what} takes {_written(units)} units of work or more; the budget is "
                f"{_written(self.work)}; raise it with --budget"
            )

    def fit(self, balls: int, what: str) -> None:
        """Refuse what takes that many balls, if they are too many."""
        if balls > self.memory:
            raise OverBudget(
                f"{what} takes the memory of {_written(balls)} balls or more; the budget is "
                f"{_written(self.memory)}; raise it with --memory"
            )


class Size(NamedTuple):
    """The number of cells, and of all their slots and columns."""

    cells: int
    slots: int
    columns: int


class Part(NamedTuple):
    """A number of positions, the blocks that each of them is filled from, and the columns of all these."""

    positions: int
    blocks: int
    columns: int

    def size(self) -> Size:
        """How many choices of blocks there are. Each block is in as many as there are of a position less."""
        with_one = comb(max(self.blocks + self.positions - 2, 0), self.positions - 1) if self.positions else 0
        cells = comb(max(self.blocks + self.positions - 1, 0), self.positions)
        return Size(cells, self.blocks * with_one, self.columns * with_one)


def count(families: Iterable[list[Part]], enough: int) -> Size:
    """How many cells families of them have, without listing any: all, or those when there were enough."""
    cells = slots = columns = 0
    for family in families:
        parts = [part.size() for part in family]
        here = prod(part.cells for part in parts)
        cells += here
        slots += sum(here // part.cells * part.slots for part in parts if here)
        columns += sum(here // part.cells * part.columns for part in parts if here)
        if cells > enough:
            break
    return Size(cells, slots, columns)


def _written(count: int) -> str:
    """A count for a message: in full, or as a power of ten."""
    return f"{count:,}" if count < 10**15 else f"10^{len(str(count)) - 1}"

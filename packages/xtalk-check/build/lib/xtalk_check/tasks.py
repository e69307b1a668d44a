"""Tasks on sequences of tokens: the right answer, the space of inputs, and cells that partition it.

A cell is a set of sequences that have one answer: its slots are filled independently of one another from sets
of tokens, in a number of arrangements (docs/proofs/theory.md, "Cells").
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement, groupby
from math import comb, factorial, prod
from typing import NamedTuple, TypeAlias

from xtalk_check.errors import Rejected
from xtalk_check.partition import Partition
from xtalk_check.reading import Fields

LARGEST = 1 << 20  # vocabulary, classes


@dataclass(frozen=True)
class Slot:
    """`copies` positions, each filled with a token of one of the columns of a block of a codebook.

    `tokens` says how many tokens of each column are allowed here.
    """

    codebook: int  # 0: anchors, 1: the rest
    block: int
    columns: tuple[int, ...]
    tokens: tuple[int, ...]
    copies: int


@dataclass(frozen=True)
class Cell:
    """All ways to fill the slots, each in that many arrangements of the filled positions."""

    answer: int
    slots: tuple[Slot, ...]
    arrangements: int

    @property
    def fillings(self) -> int:
        """The number of ways to fill the slots."""
        return prod(sum(slot.tokens) ** slot.copies for slot in self.slots)


class Size(NamedTuple):
    """The number of cells, and of all their slots and columns."""

    cells: int
    slots: int
    columns: int


@dataclass(frozen=True)
class Task:
    """A question about sequences of n tokens, with the answer an integer below the number of classes.

    max, min: the largest or smallest class among the tokens. majority: the class of more than half of them.
    modular_addition: the sum of their classes, modulo the number of answers.
    lookup: of the tokens, n-1 are queries, and then n-1 groups of equal size are the values of n-1 keys; a
    sequence is a query and then a value of each key, and its answer is the class of the queried key's value.
    """

    name: str
    n: int
    classes: tuple[int, ...]  # of each token
    answers: int

    @classmethod
    def read(cls, task: Fields) -> "Task":
        """The task of a specification."""
        name = task.choice("name", "max", "min", "majority", "lookup", "modular_addition")
        n, answers = task.integer("n", 2 if name == "lookup" else 1, 64), task.integer("answers", 1, LARGEST)
        classes = task.integers("classes", 0, answers - 1)
        if name == "lookup" and (len(classes) <= n - 1 or len(classes) % (n - 1)):
            raise Rejected(f"{len(classes)} tokens are not {n - 1} queries and values for {n - 1} keys")
        return cls(name, n, tuple(classes), answers)

    @property
    def total(self) -> int:
        """The number of sequences that have an answer."""
        if self.name == "lookup":
            return (self.n - 1) * (len(self.classes) // (self.n - 1) - 1) ** (self.n - 1)
        if self.name == "majority":
            vocabulary = len(self.classes)
            return sum(
                comb(self.n, copies) * size**copies * (vocabulary - size) ** (self.n - copies)
                for size in Counter(self.classes).values()
                for copies in range(self.n // 2 + 1, self.n + 1)
            )
        return len(self.classes) ** self.n

    def cells(self, anchor: Partition, rest: Partition) -> Iterator[Cell]:
        """Disjoint cells of sequences with an answer: all of them, if for majority each class is one block.

        Refuses anchor blocks (for modular addition, blocks of the rest) whose tokens are of several classes.
        """
        of_block = self._blocks(rest)[0] if self.name == "modular_addition" else {}
        for answer, fixed, free, arrangements in self._families(anchor, rest):
            for chosen, orders in _choices(free):
                added = sum(of_block[slot.block] * slot.copies for slot in chosen if of_block)
                yield Cell((answer + added) % self.answers, fixed + chosen, arrangements * orders)

    def size(self, anchor: Partition, rest: Partition, enough: int) -> Size:
        """How many cells there are, without listing them: all, or those counted when there were enough."""
        cells = slots = columns = 0
        for _, fixed, free, _ in self._families(anchor, rest):
            parts = [Size(1, 1, len(slot.columns)) for slot in fixed]
            parts += [tokens.size(positions) for tokens, positions in free]
            here = prod(part.cells for part in parts)
            cells += here
            slots += sum(here // part.cells * part.slots for part in parts if here)
            columns += sum(here // part.cells * part.columns for part in parts if here)
            if cells > enough:
                break
        return Size(cells, slots, columns)

    def _families(self, anchor: Partition, rest: Partition) -> "Iterator[Family]":
        """Families of cells, which differ in the blocks of their free positions alone."""
        if self.name == "modular_addition":
            yield 0, (), [(_Slots(1, range(len(self.classes)), rest), self.n)], 1
        elif self.name == "lookup":
            yield from self._looked_up(anchor, rest)
        else:
            least = self.n // 2 + 1 if self.name == "majority" else 1
            for answer, own, free in self._anchored(anchor, rest):
                for copies in range(least, self.n + 1):
                    yield answer, (own(copies),), [(free, self.n - copies)], comb(self.n, copies)

    def _blocks(self, partition: Partition) -> tuple[dict[int, int], dict[int, list[int]]]:
        """The class and the tokens of each block; refuses blocks of several classes."""
        classes: dict[int, int] = {}
        tokens: dict[int, list[int]] = {}
        for token, answer in enumerate(self.classes):
            block = partition.block(token)
            if classes.setdefault(block, answer) != answer:
                raise Rejected(f"block {block} has tokens of several classes")
            tokens.setdefault(block, []).append(token)
        return classes, tokens

    def _anchored(
        self, anchor: Partition, rest: Partition
    ) -> Iterator[tuple[int, Callable[[int], Slot], "_Slots"]]:
        """Each anchor block: its answer, it as a slot, and the tokens that leave the answer to it.

        For max and min, the last come before the block in the order of classes, then of blocks; for majority,
        they are of other classes.
        """
        classes, tokens = self._blocks(anchor)
        sign, free = -1 if self.name == "min" else 1, _Slots(1, (), rest)
        order = sorted(classes, key=lambda block: (sign * classes[block], block))
        for answer, blocks in groupby(order, classes.__getitem__):
            if self.name == "majority":
                others = (token for token, other in enumerate(self.classes) if other != answer)
                free = _Slots(1, others, rest)
            for block in blocks:
                yield answer, partial(_Slots(0, tokens[block], anchor).slot, block), free
                if self.name != "majority":
                    free.add(tokens[block])

    def _looked_up(self, anchor: Partition, rest: Partition) -> "Iterator[Family]":
        """A query and a block of values of its key; the values of each other key are free."""
        classes, groups = self._blocks(anchor)[0], self.groups()
        free = [(_Slots(1, group, rest), 1) for group in groups]
        for query, own in enumerate(groups):
            first = _Slots(0, [query], anchor).slot(anchor.block(query), 1)
            asked = _Slots(0, own, anchor)
            for block in asked.columns:
                others = free[:query] + free[query + 1 :]
                yield classes[block], (first, asked.slot(block, 1)), others, 1

    def groups(self) -> list[range]:
        """The values of each key."""
        keys = self.n - 1
        size = len(self.classes) // keys - 1
        return [range(keys + key * size, keys + (key + 1) * size) for key in range(keys)]


class _Slots:
    """Some tokens, by the blocks of their columns: what a slot may be filled with."""

    def __init__(self, codebook: int, tokens: Iterable[int], partition: Partition) -> None:
        self._codebook, self._partition = codebook, partition
        self.columns: dict[int, Counter[int]] = {}  # of each block, with their tokens
        self.width = 0  # the number of columns
        self.add(tokens)

    def add(self, tokens: Iterable[int]) -> None:
        """Allow further tokens."""
        for token in tokens:
            columns = self.columns.setdefault(self._partition.block(token), Counter())
            column = self._partition.columns[token]
            self.width += column not in columns
            columns[column] += 1

    def slot(self, block: int, copies: int) -> Slot:
        """A slot filled from one of them."""
        columns = self.columns[block]
        return Slot(self._codebook, block, tuple(columns), tuple(columns.values()), copies)

    def multisets(self, positions: int) -> Iterator[tuple[tuple[Slot, ...], int]]:
        """Every choice of blocks for that many positions, and its number of orders."""
        for chosen in combinations_with_replacement(self.columns, positions):
            counts = Counter(chosen)
            yield tuple(self.slot(*item) for item in counts.items()), arrangements(counts.values())

    def size(self, positions: int) -> Size:
        """How many `multisets` there are. Each block is in as many as there are of a position less."""
        blocks = len(self.columns)
        with_one = comb(max(blocks + positions - 2, 0), positions - 1) if positions else 0
        cells = comb(max(blocks + positions - 1, 0), positions)
        return Size(cells, blocks * with_one, self.width * with_one)


# The answer but for what free positions add to it, fixed slots, tokens for free positions, arrangements.
Family: TypeAlias = tuple[int, tuple[Slot, ...], list[tuple[_Slots, int]], int]


def _choices(free: list[tuple[_Slots, int]]) -> Iterator[tuple[tuple[Slot, ...], int]]:
    """Every choice of blocks for all free positions, and its number of orders."""
    if not free:
        yield (), 1
        return
    (tokens, positions), *others = free
    for chosen, orders in tokens.multisets(positions):
        for further, more in _choices(others):
            yield chosen + further, orders * more


def arrangements(copies: Iterable[int]) -> int:
    """In how many orders the given numbers of copies of different things can stand."""
    numbers = list(copies)
    return factorial(sum(numbers)) // prod(map(factorial, numbers))

"""Tasks on sequences of tokens: the right answer, the space of inputs, and cells that partition it.

A cell is a set of sequences that have one answer: its slots are filled independently of one another from sets
of tokens, in a number of arrangements (docs/proofs/theory.md, "Cells").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, groupby, product
from math import comb, factorial, prod
from typing import NamedTuple

from xtalk_check.codebook import Partition
from xtalk_check.errors import Rejected
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

    def answer(self, tokens: Sequence[int]) -> int | None:
        """The right answer, None where the sequence has none."""
        classes = [self.classes[token] for token in tokens]
        if self.name == "max":
            return max(classes)
        if self.name == "min":
            return min(classes)
        if self.name == "modular_addition":
            return sum(classes) % self.answers
        if self.name == "lookup":
            return classes[1 + tokens[0]]
        most, copies = Counter(classes).most_common(1)[0]
        return most if 2 * copies > self.n else None

    def joined(self, answer: int, other: int) -> int:
        """The answer of a sequence whose two parts have these answers; of max, min and modular_addition."""
        if self.name == "modular_addition":
            return (answer + other) % self.answers
        return max(answer, other) if self.name == "max" else min(answer, other)

    def sequences(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Every sequence, up to the order of its tokens where that does not matter, and its orders."""
        if self.name == "lookup":
            keys, tokens = self.n - 1, range(len(self.classes))
            yield from ((filled, 1) for filled in product(tokens[:keys], *self._groups()))
            return
        for tokens in combinations_with_replacement(range(len(self.classes)), self.n):
            yield tokens, _arrangements(Counter(tokens).values())

    def count_sequences(self) -> int:
        """How many `sequences` there are."""
        if self.name == "lookup":
            return self.total
        return comb(len(self.classes) + self.n - 1, self.n)

    def cells(self, anchor: Partition, rest: Partition) -> Iterator[Cell]:
        """Disjoint cells of sequences with an answer: all of them, if for majority each class is one block.

        Refuses anchor blocks (for modular addition, blocks of the rest) whose tokens are of several classes.
        """
        if self.name == "lookup":
            yield from self._lookup_cells(anchor, rest)
        elif self.name == "modular_addition":
            of_block, free = self._blocks(rest)[0], _Slots(1, range(len(self.classes)), rest)
            for slots, arrangements in free.multisets(self.n):
                answer = sum(of_block[slot.block] * slot.copies for slot in slots) % self.answers
                yield Cell(answer, slots, arrangements)
        else:
            for answer, block, own, free in self._anchored(anchor, rest):
                for copies in self._copies:
                    for slots, arrangements in free.multisets(self.n - copies):
                        slots = (own.slot(block, copies), *slots)
                        yield Cell(answer, slots, arrangements * comb(self.n, copies))

    def size(self, anchor: Partition, rest: Partition, enough: int) -> Size:
        """How many cells there are, without listing them: all, or those counted when there were enough.

        Refuses what `cells` refuses.
        """
        if self.name == "lookup":
            return self._lookup_size(anchor, rest)
        if self.name == "modular_addition":
            self._blocks(rest)
            return _Slots(1, range(len(self.classes)), rest).size(self.n)
        cells = slots = columns = 0
        for _, _, own, free in self._anchored(anchor, rest):
            for copies in self._copies:
                beside = free.size(self.n - copies)
                cells += beside.cells
                slots += beside.cells + beside.slots
                columns += beside.cells * own.width + beside.columns
            if cells > enough:
                break
        return Size(cells, slots, columns)

    @property
    def _copies(self) -> range:
        """How many tokens of a cell may be of its anchor block."""
        return range(self.n // 2 + 1 if self.name == "majority" else 1, self.n + 1)

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

    def _anchored(self, anchor: Partition, rest: Partition) -> Iterator[tuple[int, int, "_Slots", "_Slots"]]:
        """Each anchor block's answer, itself, its tokens, and the tokens that leave the answer to it.

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
                yield answer, block, _Slots(0, tokens[block], anchor), free
                if self.name != "majority":
                    free.add(tokens[block])

    def _lookup_cells(self, anchor: Partition, rest: Partition) -> Iterator[Cell]:
        """A query, a block of values of its key, and a block of values of each other key."""
        groups, (of_block, _) = self._groups(), self._blocks(anchor)
        for query, own in enumerate(groups):
            first = _Slots(0, [query], anchor).slot(anchor.block(query), 1)
            others = [_Slots(1, group, rest) for group in groups if group is not own]
            asked = _Slots(0, own, anchor)
            for block in asked.blocks:
                for chosen in product(*(other.blocks for other in others)):
                    free = (other.slot(block_, 1) for other, block_ in zip(others, chosen, strict=True))
                    yield Cell(of_block[block], (first, asked.slot(block, 1), *free), 1)

    def _lookup_size(self, anchor: Partition, rest: Partition) -> Size:
        self._blocks(anchor)
        cells = columns = 0
        groups = self._groups()
        for own in groups:
            parts = [_Slots(0, own, anchor)]
            parts += [_Slots(1, group, rest) for group in groups if group is not own]
            here = prod(len(part.blocks) for part in parts)
            cells += here
            columns += here + sum(here // len(part.blocks) * part.width for part in parts)
        return Size(cells, self.n * cells, columns)

    def _groups(self) -> list[range]:
        """The values of each key."""
        keys = self.n - 1
        size = len(self.classes) // keys - 1
        return [range(keys + key * size, keys + (key + 1) * size) for key in range(keys)]


class _Slots:
    """Some tokens, by the blocks of their columns: what a slot may be filled with."""

    def __init__(self, codebook: int, tokens: Iterable[int], partition: Partition) -> None:
        self._codebook, self._partition = codebook, partition
        self._columns: dict[int, Counter[int]] = {}
        self.width = 0  # the number of columns
        self.add(tokens)

    def add(self, tokens: Iterable[int]) -> None:
        """Allow further tokens."""
        for token in tokens:
            columns = self._columns.setdefault(self._partition.block(token), Counter())
            column = self._partition.columns[token]
            self.width += column not in columns
            columns[column] += 1

    @property
    def blocks(self) -> list[int]:
        """The blocks of these tokens."""
        return list(self._columns)

    def slot(self, block: int, copies: int) -> Slot:
        """A slot filled from one of them."""
        columns = self._columns[block]
        return Slot(self._codebook, block, tuple(columns), tuple(columns.values()), copies)

    def multisets(self, positions: int) -> Iterator[tuple[tuple[Slot, ...], int]]:
        """Every choice of blocks for that many positions, and its number of orders."""
        for chosen in combinations_with_replacement(self.blocks, positions):
            counts = Counter(chosen)
            yield tuple(self.slot(*item) for item in counts.items()), _arrangements(counts.values())

    def size(self, positions: int) -> Size:
        """How many `multisets` there are. Each block is in as many as there are of a position less."""
        blocks = len(self._columns)
        with_one = comb(max(blocks + positions - 2, 0), positions - 1) if positions else 0
        cells = comb(max(blocks + positions - 1, 0), positions)
        return Size(cells, blocks * with_one, self.width * with_one)


def _arrangements(copies: Iterable[int]) -> int:
    """In how many orders the given numbers of copies of different things can stand."""
    numbers = list(copies)
    return factorial(sum(numbers)) // prod(map(factorial, numbers))

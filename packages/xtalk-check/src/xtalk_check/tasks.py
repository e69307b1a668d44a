"""Tasks on sequences of tokens: the space of inputs, and cells that partition it by their right answer.

A cell is a set of sequences that have one answer: its slots are filled independently of one another from sets
of tokens, in a number of arrangements (docs/proofs/theory.md, "Cells").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, factorial, prod

from xtalk_check.errors import Rejected
from xtalk_check.limits import Part
from xtalk_check.reading import Fields

LARGEST = 1 << 20  # vocabulary, classes


@dataclass(frozen=True)
class Partition:
    """A partition of the tokens into columns, and of the columns into blocks."""

    columns: Sequence[int]  # of each token
    blocks: Sequence[int]  # of each column

    @classmethod
    def read(cls, advice: Fields, tokens: int) -> "Partition":
        """Read a partition, any of which is sound; null columns make every token a column of its own."""
        columns = range(tokens)
        if not advice.null("columns"):
            columns = advice.integers("columns", 0, tokens - 1, tokens)
        blocks = advice.integers("blocks", 0, max(columns), max(columns) + 1)
        advice.done()
        if len(set(columns)) < len(blocks):
            raise Rejected("a codebook has a column without tokens")
        return cls(columns, blocks)

    def block(self, token: int) -> int:
        """The block of a token."""
        return self.blocks[self.columns[token]]

    @property
    def members(self) -> list[list[int]]:
        """The tokens of each column."""
        members: list[list[int]] = [[] for _ in self.blocks]
        for token, column in enumerate(self.columns):
            members[column].append(token)
        return members


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


class Pool:
    """Some tokens, by the blocks of their columns: what positions may be filled with."""

    def __init__(self, codebook: int, partition: Partition, tokens: Iterable[int] = ()) -> None:
        self._codebook, self._partition = codebook, partition
        self.blocks: dict[int, Counter[int]] = {}  # the columns of each block, with their tokens
        self.columns = 0  # of all blocks
        self.add(tokens)

    def add(self, tokens: Iterable[int]) -> None:
        """Allow further tokens."""
        for token in tokens:
            block = self.blocks.setdefault(self._partition.block(token), Counter())
            column = self._partition.columns[token]
            self.columns += column not in block
            block[column] += 1

    def choices(self, positions: int) -> Iterator[tuple[Slot, ...]]:
        """Every choice of blocks for that many positions, up to their order."""
        for chosen in combinations_with_replacement(self.blocks, positions):
            yield tuple(self._slot(block, copies) for block, copies in Counter(chosen).items())

    def _slot(self, block: int, copies: int) -> Slot:
        columns = self.blocks[block]
        return Slot(self._codebook, block, tuple(columns), tuple(columns.values()), copies)


# Cells that differ in their choice of blocks alone: their answer, and pools with the positions they fill.
Family = tuple[int, list[tuple[Pool, int]]]


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
        task.choice("ties", "lose")  # a right answer is strictly ahead of every other
        if not classes:
            raise Rejected("the specification's task has no tokens")
        if name == "lookup" and (len(classes) <= n - 1 or len(classes) % (n - 1)):
            raise Rejected(f"{len(classes)} tokens are not {n - 1} queries and values for {n - 1} keys")
        return cls(name, n, tuple(classes), answers)

    @property
    def total(self) -> int:
        """The number of sequences that have an answer."""
        vocabulary = len(self.classes)
        if self.name == "lookup":
            return (self.n - 1) * (vocabulary // (self.n - 1) - 1) ** (self.n - 1)
        if self.name == "majority":
            return sum(
                comb(self.n, copies) * size**copies * (vocabulary - size) ** (self.n - copies)
                for size in Counter(self.classes).values()
                for copies in range(self.n // 2 + 1, self.n + 1)
            )
        return vocabulary**self.n

    def cells(self, anchor: Partition, rest: Partition) -> Iterator[Cell]:
        """Disjoint cells, of which each sequence that has an answer is in one.

        Refuses anchor blocks (for modular addition, blocks of the rest) whose tokens are of several classes.
        """
        added_up = self.name == "modular_addition"
        class_of, _ = self._by_block(rest if added_up else anchor)
        for answer, pools in self._families(anchor, rest):
            for slots in _choices(pools):
                if added_up:
                    answer = sum(class_of[slot.block] * slot.copies for slot in slots) % self.answers
                orders = 1 if self.name == "lookup" else _orders(slot.copies for slot in slots)
                yield Cell(answer, slots, orders)

    def parts(self, anchor: Partition, rest: Partition) -> Iterator[list[Part]]:
        """For each family of cells, what its number of cells depends on."""
        for _, pools in self._families(anchor, rest):
            yield [Part(positions, len(pool.blocks), pool.columns) for pool, positions in pools]

    def _families(self, anchor: Partition, rest: Partition) -> Iterator[Family]:
        """Disjoint families of cells; of modular addition the answer depends on the choice of blocks."""
        if self.name == "modular_addition":
            yield 0, [(Pool(1, rest, range(len(self.classes))), self.n)]
        elif self.name == "lookup":
            yield from self._looked_up(anchor, rest)
        elif self.name == "majority":
            for answer in sorted(set(self.classes)):
                own = Pool(0, anchor, (t for t, other in enumerate(self.classes) if other == answer))
                others = Pool(1, rest, (t for t, other in enumerate(self.classes) if other != answer))
                for copies in range(self.n // 2 + 1, self.n + 1):
                    yield answer, [(own, copies), (others, self.n - copies)]
        else:
            yield from self._furthest(anchor, rest)

    def _furthest(self, anchor: Partition, rest: Partition) -> Iterator[Family]:
        """Max and min: some tokens of an anchor block, and beside them tokens of the blocks before it.

        Blocks are in the order of their classes, then of their numbers.
        """
        class_of, tokens = self._by_block(anchor)
        sign, before = -1 if self.name == "min" else 1, Pool(1, rest)
        for block in sorted(class_of, key=lambda block: (sign * class_of[block], block)):
            own = Pool(0, anchor, tokens[block])
            for copies in range(1, self.n + 1):
                yield class_of[block], [(own, copies), (before, self.n - copies)]
            before.add(tokens[block])

    def _looked_up(self, anchor: Partition, rest: Partition) -> Iterator[Family]:
        """A query, a value of its key, and any values of the other keys."""
        keys = self.n - 1
        size = len(self.classes) // keys - 1
        values = [range(keys + key * size, keys + (key + 1) * size) for key in range(keys)]
        free = [(Pool(1, rest, group), 1) for group in values]
        for query, own in enumerate(values):
            fixed, others = (Pool(0, anchor, [query]), 1), free[:query] + free[query + 1 :]
            for answer in sorted({self.classes[token] for token in own}):
                asked = Pool(0, anchor, (token for token in own if self.classes[token] == answer))
                yield answer, [fixed, (asked, 1), *others]

    def _by_block(self, partition: Partition) -> tuple[dict[int, int], dict[int, list[int]]]:
        """The class and the tokens of each block; refuses blocks of several classes."""
        classes: dict[int, int] = {}
        tokens: dict[int, list[int]] = {}
        for token, answer in enumerate(self.classes):
            block = partition.block(token)
            if classes.setdefault(block, answer) != answer:
                raise Rejected(f"block {block} has tokens of several classes")
            tokens.setdefault(block, []).append(token)
        return classes, tokens


def _choices(pools: list[tuple[Pool, int]]) -> Iterator[tuple[Slot, ...]]:
    """Every choice of blocks for the positions of all pools."""
    if not pools:
        yield ()
        return
    (pool, positions), *others = pools
    for chosen in pool.choices(positions):
        for further in _choices(others):
            yield chosen + further


def _orders(copies: Iterable[int]) -> int:
    """In how many orders the given numbers of copies of different things can stand."""
    numbers = list(copies)
    return factorial(sum(numbers)) // prod(map(factorial, numbers))

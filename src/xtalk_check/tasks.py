"""Tasks on sequences of tokens: the right answer, the space of inputs, and cells that partition it.

A cell is a set of sequences that have one answer: its slots are filled independently of one another from sets
of tokens, in a number of arrangements (docs/proofs.md, "Cells").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import comb, factorial, prod

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields

LARGEST = 1 << 20  # vocabulary, classes


@dataclass(frozen=True)
class Slot:
    """`copies` positions, each filled with a token of one of the columns of a codebook.

    `tokens` says how many tokens of each column are allowed here.
    """

    codebook: int  # 0: anchors, 1: the rest
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

    def sequences(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Every sequence, up to the order of its tokens where that does not matter, and its orders."""
        if self.name == "lookup":
            keys, tokens = self.n - 1, range(len(self.classes))
            yield from ((filled, 1) for filled in product(tokens[:keys], *self._groups()))
            return
        for tokens in combinations_with_replacement(range(len(self.classes)), self.n):
            yield tokens, _arrangements(Counter(tokens).values())

    def cells(self, anchors: Sequence[int], rest: Sequence[int], blocks: Sequence[int]) -> Iterator[Cell]:
        """Disjoint cells of sequences with an answer; all such sequences, if majority columns are classes.

        anchors, rest: the column of each token in either codebook; blocks: the block of each rest column.
        Refuses anchor columns whose tokens are of several classes, and modular addition.
        """
        members: dict[int, list[int]] = {}
        for token, anchor in enumerate(anchors):
            members.setdefault(anchor, []).append(token)
        if any(len({self.classes[token] for token in tokens}) > 1 for tokens in members.values()):
            raise Rejected("an anchor column has tokens of several classes")
        if self.name == "modular_addition":
            raise Rejected("no token decides the answer of modular addition: T3 has no cells for it")
        if self.name == "lookup":
            yield from self._lookup_cells(anchors, rest, blocks)
            return
        for anchor, own in members.items():
            answer = self.classes[own[0]]
            free = _Blocks(
                (t for t in range(len(anchors)) if self._below(t, answer, anchor, anchors)), rest, blocks
            )
            for copies in range(self.n // 2 + 1 if self.name == "majority" else 1, self.n + 1):
                first = Slot(0, (anchor,), (len(own),), copies)
                for chosen in combinations_with_replacement(free.blocks, self.n - copies):
                    counts = Counter(chosen)
                    yield Cell(
                        answer,
                        (first, *(free.slot(block, copies_) for block, copies_ in counts.items())),
                        _arrangements([copies, *counts.values()]),
                    )

    def _below(self, token: int, answer: int, anchor: int, anchors: Sequence[int]) -> bool:
        """Whether the token may stand beside the anchor: it leaves the answer to it, and comes second."""
        if self.name == "majority":
            return self.classes[token] != answer
        sign = 1 if self.name == "max" else -1
        return (sign * self.classes[token], anchors[token]) < (sign * answer, anchor)

    def _lookup_cells(
        self, anchors: Sequence[int], rest: Sequence[int], blocks: Sequence[int]
    ) -> Iterator[Cell]:
        groups = self._groups()
        for query, own in enumerate(groups):
            others = [_Blocks(group, rest, blocks) for group in groups if group is not own]
            for anchor, tokens in Counter(anchors[token] for token in own).items():
                fixed = Slot(0, (anchors[query],), (1,), 1), Slot(0, (anchor,), (tokens,), 1)
                answer = next(self.classes[token] for token in own if anchors[token] == anchor)
                for chosen in product(*(other.blocks for other in others)):
                    free = (other.slot(block, 1) for other, block in zip(others, chosen, strict=True))
                    yield Cell(answer, (*fixed, *free), 1)

    def _groups(self) -> list[range]:
        """The values of each key."""
        keys = self.n - 1
        size = len(self.classes) // keys - 1
        return [range(keys + key * size, keys + (key + 1) * size) for key in range(keys)]


class _Blocks:
    """Some tokens, by the blocks of their columns."""

    def __init__(self, tokens: Iterable[int], columns: Sequence[int], blocks: Sequence[int]) -> None:
        self._columns: dict[int, Counter[int]] = {}
        for token in tokens:
            self._columns.setdefault(blocks[columns[token]], Counter())[columns[token]] += 1

    @property
    def blocks(self) -> list[int]:
        return list(self._columns)

    def slot(self, block: int, copies: int) -> Slot:
        return Slot(1, tuple(self._columns[block]), tuple(self._columns[block].values()), copies)


def _arrangements(copies: Iterable[int]) -> int:
    """In how many orders the given numbers of copies of different things can stand."""
    numbers = list(copies)
    return factorial(sum(numbers)) // prod(map(factorial, numbers))

"""Tasks: answers, totals, and cells that neither overlap nor leave anything out."""

from collections import Counter
from itertools import permutations, product

import pytest
from reference.product_space import right_answer, sequences
from xtalk_check import limits
from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields
from xtalk_check.tasks import Partition, Task

CASES = [
    ({"name": "max", "n": 3, "answers": 3, "classes": [0, 1, 2, 1, 2]}, [0, 1, 2, 1, 3], [0, 0, 1, 1, 0]),
    ({"name": "min", "n": 3, "answers": 3, "classes": [0, 1, 2, 1, 0]}, [0, 1, 2, 3, 0], [0, 1, 1, 2, 0]),
    (
        {"name": "majority", "n": 4, "answers": 3, "classes": [0, 1, 2, 1, 2]},
        [0, 1, 2, 1, 2],
        [0, 1, 0, 1, 0],
    ),
    ({"name": "lookup", "n": 3, "answers": 3, "classes": [0, 0, 0, 1, 2, 1, 0, 2]}, list(range(8)), [0] * 8),
    ({"name": "modular_addition", "n": 3, "answers": 3, "classes": [0, 1, 2, 1]}, [0] * 4, [0, 1, 2, 1]),
]


def partition(blocks: list[int], columns: list[int] | None = None) -> Partition:
    return Partition(columns or list(range(len(blocks))), blocks)


def read(task: dict) -> Task:
    return Task.read(Fields({"ties": "lose"} | task, "task"))


def members(task: Task, cell, books):
    """The fillings of a cell."""
    positions = []
    for slot in cell.slots:
        columns = books[slot.codebook].columns
        positions += [[t for t in range(len(task.classes)) if columns[t] in slot.columns]] * slot.copies
    return product(*positions)


def test_totals():
    for task, _, _ in CASES:
        read_ = read(task)
        space = list(sequences(task))
        assert read_.total == len(space)


def test_cells_partition_the_space():
    """Cells as sets of sequences: each sequence in one cell, with that cell's answer.

    Of majority, whatever the anchor blocks; and of every task with blocks of one token.
    """
    further = [(task, list(range(len(anchor))), list(range(len(rest)))) for task, anchor, rest in CASES]
    further += [(CASES[2][0], [0, 1, 2, 3, 2], [0] * 5)]
    for task, anchor, rest in CASES + further:
        read_, books = read(task), (partition(anchor), partition(rest))
        cells = list(read_.cells(*books))
        assert sum(cell.fillings * cell.arrangements for cell in cells) == read_.total, task["name"]
        covered: Counter[tuple[int, ...]] = Counter()
        for cell in cells:
            here = set()
            for tokens in members(read_, cell, books):
                here.update([tuple(sorted(tokens))] if task["name"] == "lookup" else permutations(tokens))
            assert len(here) == cell.fillings * cell.arrangements
            assert all(right_answer(task, tokens) == cell.answer for tokens in here)
            covered.update(here)
        assert covered == Counter(sequences(task)), task["name"]


def test_totals_of_majorities():
    """More than half of an odd or even number of tokens."""
    for n in (1, 2, 3, 5):
        task = {"name": "majority", "n": n, "answers": 3, "classes": [0, 1, 2, 1, 2]}
        assert read(task).total == len(list(sequences(task)))


def test_tasks_that_are_refused():
    good = {"name": "lookup", "n": 3, "answers": 3, "classes": [0, 0, 0, 1, 2, 1]}
    assert read(good).total == 2 * 2**2
    for changed, reason in (
        ({"n": 1}, "from 2 to 64"),
        ({"n": 65}, "from 2 to 64"),
        ({"n": 7}, "not 6 queries"),  # and no values
        ({"n": 9}, "not 8 queries"),
        ({"n": 5}, "not 4 queries"),
        ({"name": "max", "n": 0}, "from 1 to 64"),
        ({"classes": [0, 0, 0, 1, 2, 3]}, "from 0 to 2"),
        ({"classes": [0, 0, 0, 1, 2, -1]}, "from 0 to 2"),
        ({"answers": 0}, "from 1 to"),
        ({"name": "max", "classes": []}, "no tokens"),
        ({"ties": "lowest"}, "expected lose"),
        ({"answers": (1 << 20) + 1}, "from 1 to 1048576"),
    ):
        with pytest.raises(Rejected, match=reason):
            read(good | changed)


def test_cells_are_counted_without_listing_them():
    """With blocks of several columns too, of any number of positions."""
    further = [
        ({"name": "max", "n": n, "answers": 3, "classes": [0, 1, 2, 1, 2, 2]}, anchor, rest)
        for n in (1, 2, 5)
        for anchor in ([0, 1, 2, 1, 3, 2], [0, 1, 2, 3, 4, 5])
        for rest in ([0] * 6, [0, 1, 0, 1, 2, 2], [0, 1, 2, 3, 4, 5])
    ]
    further += [(task | {"name": "min"}, anchor, rest) for task, anchor, rest in further]
    further += [(task | {"name": "majority"}, anchor, rest) for task, anchor, rest in further[:18]]
    books_ = [(task, partition(anchor), partition(rest)) for task, anchor, rest in CASES + further]
    books_ += [(task, anchor, partition([0, 0, 1], [0, 0, 1, 1, 2, 2])) for task, anchor, _ in books_[-18:]]
    for task, *books in books_:
        read_ = read(task)
        cells = list(read_.cells(*books))
        slots = [slot for cell in cells for slot in cell.slots]
        expected = (len(cells), len(slots), sum(len(slot.columns) for slot in slots))
        assert limits.count(read_.parts(*books), 10**9) == expected, task
        assert len(cells) >= limits.count(read_.parts(*books), 0).cells > 0


def test_counting_cells_stops_at_enough():
    task = read({"name": "max", "n": 3, "answers": 4, "classes": [0, 1, 2, 3]})
    books = partition([0, 1, 2, 3]), partition([0, 1, 2, 3])
    assert [limits.count(task.parts(*books), enough).cells for enough in (0, 1, 3, 4, 9, 10, 99)] == [
        1,
        2,
        4,
        7,
        10,
        16,
        20,
    ]


def test_columns_count_only_the_tokens_that_are_allowed():
    task = read({"name": "max", "n": 2, "answers": 3, "classes": [0, 1, 2]})
    cells = list(task.cells(partition([0, 1, 2]), partition([0], [0, 0, 0])))
    assert [(c.answer, [s.tokens for s in c.slots], c.arrangements) for c in cells] == [
        (0, [(1,)], 1),
        (1, [(1,), (1,)], 2),
        (1, [(1,)], 1),
        (2, [(1,), (2,)], 2),
        (2, [(1,)], 1),
    ]


def test_blocks_of_several_classes_are_refused():
    for task, anchor, rest in CASES:
        anchor, rest = [0] * len(anchor), [0] * len(rest)
        with pytest.raises(Rejected, match="several classes"):
            list(read(task).cells(partition(anchor), partition(rest)))


def test_lookups_need_queries_and_groups():
    with pytest.raises(Rejected, match="queries and values"):
        read({"name": "lookup", "n": 3, "answers": 2, "classes": [0, 0, 1]})

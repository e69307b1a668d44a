from collections import Counter

import pytest
import torch
from proofs.small_networks import ADDITION, ANCHORED, LOOKUP, MAJORITY, all_sequences, plain_answer
from xtalk_check.reading import Fields
from xtalk_check.tasks import Partition, Task

from xtalk.errors import XtalkError
from xtalk.proofs.t3.tasks import product_task

TASKS = (*ANCHORED, ADDITION)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_answers_and_total_are_those_of_the_words(task):
    sequences = all_sequences(task)
    assert task.total == len(sequences)
    assert task.answer(sequences).tolist() == [plain_answer(task, s) for s in sequences.tolist()]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_checker_means_the_same_task(task):
    spec = task.spec("T3", "relu", True, None)["task"]
    read = Task.read(Fields({k: spec[k] for k in ("name", "n", "answers", "classes", "ties")}, "task"))
    alone, total = Partition(range(task.vocabulary), range(task.vocabulary)), 0
    for cell in read.cells(alone, alone):
        tokens = sorted(slot.columns[0] for slot in cell.slots for _ in range(slot.copies))
        assert task.answer(torch.tensor([tokens])).tolist() == [cell.answer]
        total += cell.arrangements
    assert total == read.total == task.total


@pytest.mark.parametrize("task", (MAJORITY, LOOKUP, ADDITION), ids=lambda task: task.name)
def test_samples_are_uniform_over_the_space(task):
    drawn = Counter(map(tuple, task.sample(20_000, torch.Generator().manual_seed(0)).tolist()))
    space = set(map(tuple, all_sequences(task).tolist()))
    assert set(drawn) == space
    expected = 20_000 / len(space)
    assert max(abs(count - expected) for count in drawn.values()) < 5.5 * expected**0.5


@pytest.mark.parametrize("task", (ADDITION, MAJORITY), ids=lambda task: task.name)
def test_distinct_counts_multisets_where_order_does_not_matter(task):
    assert task.distinct == len({tuple(sorted(s)) for s in all_sequences(task).tolist()})


def test_distinct_counts_sequences_where_order_matters():
    assert LOOKUP.distinct == LOOKUP.total


def test_tokens_are_names_of_classes_in_turn():
    assert product_task("max", 6, 3, 3).classes == (0, 1, 2, 0, 1, 2)
    assert product_task("lookup", 8, 3, 2).classes == (0, 0, *(0, 1) * 4)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (("median", 8, 3, 4), "unknown task"),
        (("max", 8, 1, 4), "n is 1"),
        (("max", 8, 3, 3), "no whole number"),
        (("max", 8, 3, 16), "no whole number"),
        (("lookup", 8, 4, 4), "3 keys"),
    ],
)
def test_sizes_that_make_no_task_are_refused(sizes, words):
    with pytest.raises(XtalkError, match=words):
        product_task(*sizes)

"""The attention theorem: bounds against the exact network, and no more is proven than is true."""

from dataclasses import replace
from itertools import product
from math import exp

from flint import arb, ctx
from reference.attention_space import (
    attention_certificate,
    attention_solver,
    attention_spec,
    count_right_by_attention,
    random_attention,
    run,
)
from reference.product_space import codebook, container, encoded
from xtalk_check import check
from xtalk_check.attention import Network, margins_of, scaled
from xtalk_check.counting import Bound
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.tasks import Cell, Partition, Task
from xtalk_check.work import PRECISION, Work

SIX = {"classes": [0, 1, 2, 3, 3, 1]}
NONE = codebook([0] * 6)
CLASSES = codebook([0, 1, 2, 3], [0, 1, 2, 3, 3, 1])
EXACT = {"query": codebook(range(6)), "anchor": codebook(range(6)), "rest": codebook(range(6))}
TOKENS = {"query": CLASSES, "anchor": codebook([0, 1, 2, 3, 3, 1]), "rest": NONE}
LOSSY = {"query": CLASSES, "anchor": CLASSES, "rest": codebook([0, 0, 0, 0], [0, 1, 2, 3, 3, 1])}
PAIRS = {
    "query": codebook(range(6)),
    "anchor": EXACT["anchor"],
    "rest": codebook([0, 1, 1], [0, 0, 1, 2, 2, 1]),
}


def verdict(tensors, task: dict, certified: int = 0, **advice):
    weights = container(tensors)
    given = attention_certificate(weights, certified, len(task["classes"]) ** task["n"], **advice)
    return check(encoded(given), encoded(attention_spec(**task)), weights)


def proven(tensors, task: dict, **advice) -> int:
    found = verdict(tensors, task, **advice)
    assert found.verdict == "accepted", found.reason
    return found.proven["certified"]


def gaps(tensors, task: dict, advice: dict):
    """The sum of e_t m_t and its bound, for every filling of every cell and every wrong answer."""
    tokens, V = range(len(task["classes"])), len(task["classes"])
    with ctx.workprec(PRECISION):
        weights, work = parse_weights(container(tensors)), Work()
        fields = Fields(dict(task), "task")
        question = Task.read(fields)
        network = Network.load(fields, weights, V, question.answers, work)
        queries, *books = (Partition.read(Fields(advice[k], k), V) for k in ("query", "anchor", "rest"))
        columns = [book.members for book in books]
        joined = max if question.name == "max" else min
        before = replace(question, n=question.n - 1)
        for asking in queries.members:
            margins = margins_of(network, asking, columns, arb(0), work)
            for cell in before.cells(*books):
                answer = joined(cell.answer, question.classes[asking[0]])
                bases, tables = margins(answer)
                bounds = [[tables[slot.codebook][i] for i in slot.columns] for slot in cell.slots]
                slots = [slot for slot in cell.slots for _ in range(slot.copies)]
                fits = [
                    [t for t in tokens if books[slot.codebook].columns[t] in slot.columns] for slot in slots
                ]
                for q, filling in product(asking, product(*fits)):
                    scores, logits = run(tensors, (*filling, q), task["residual"])
                    shift = sum(run(tensors, (t, q), task["residual"])[0][0] for t in tokens) / V
                    whole = sum(exp(score - shift) for score in scores)
                    for wrong in {*range(question.answers)} - {answer}:
                        low = float(bases[wrong].lower())
                        for slot, of_slot, t in spelled(cell, bounds, filling):
                            at = slot.columns.index(books[slot.codebook].columns[t])
                            low += float(of_slot[at][wrong].lower())
                        yield (logits[answer] - logits[wrong]) * whole, low


def spelled(cell: Cell, scores, filling):
    places = [
        (slot, of_slot) for slot, of_slot in zip(cell.slots, scores, strict=True) for _ in range(slot.copies)
    ]
    return [(slot, of_slot, t) for (slot, of_slot), t in zip(places, filling, strict=True)]


def test_margins_times_the_denominator_are_bounded_below():
    tightest = []
    for seed, (advice, residual) in enumerate(product((EXACT, TOKENS, LOSSY, PAIRS), (True, False))):
        tensors = random_attention(seed, 6, 4, 3, 4)
        task = attention_spec(**SIX, residual=residual, name=("max", "min")[seed % 2])["task"]
        found = list(gaps(tensors, task, advice))
        assert all(low <= true + 1e-9 for true, low in found), (seed, advice)
        if advice is EXACT:
            assert all(true - low < 1e-9 for true, low in found)
        tightest.append(min(true - low for true, low in found))
    assert max(tightest) < 0.05


def test_tokens_of_their_own_prove_all_that_is_true():
    for seed, name in enumerate(("max", "min")):
        for n in (2, 3):
            tensors = random_attention(10 + seed, 6, 4, 3, 4)
            task = attention_spec(**SIX, name=name, n=n, residual=seed != 1)["task"]
            assert proven(tensors, task, **EXACT, bits=20) == count_right_by_attention(tensors, task)[0]


def test_columns_of_tokens_alike_lose_nothing():
    tensors = random_attention(4, 6, 4, 3, 4)
    shape, rows = tensors["embed"]
    first = [4 * SIX["classes"].index(answer) for answer in SIX["classes"]]
    tensors["embed"] = shape, [entry for at in first for entry in rows[at : at + 4]]
    task = attention_spec(**SIX, residual=True)["task"]
    right, _ = count_right_by_attention(tensors, task)
    one_by_one = codebook(range(4), CLASSES["columns"])
    assert proven(tensors, task, query=CLASSES, anchor=CLASSES, rest=one_by_one, bits=20) == right > 0


def test_no_more_is_proven_of_attention_than_is_true():
    proofs = 0
    for seed in range(16):
        tensors = random_attention(seed, 6, 4, 3, 4, scale=0.5 + seed / 20)
        task = attention_spec(**SIX, name=("max", "min")[seed % 2], residual=seed % 3 > 0)["task"]
        true = count_right_by_attention(tensors, task)[0]
        for advice in (TOKENS, LOSSY, PAIRS):
            certified = proven(tensors, task, **advice)
            assert certified <= true
            proofs += certified > 0
    assert proofs >= 16


def test_a_solver_by_attention_is_certified_and_a_broken_one_is_not():
    task, solver = attention_spec()["task"], attention_solver(4)
    assert count_right_by_attention(solver, task) == (64, 64)
    assert proven(solver, task) == 64
    assert verdict(solver, task, 64).verdict == "accepted"
    shape, values = solver["w_key"]
    gentle = solver | {"w_key": (shape, [value / 8 for value in values])}  # a quarter for each token
    right = count_right_by_attention(gentle, task)[0]
    assert proven(gentle, task, rest=codebook(range(4))) <= right < 64
    assert "are proven" in verdict(gentle, task, right + 1).reason


def test_only_tasks_of_two_parts_are_supported():
    for task in (
        {"name": "majority"},
        {"name": "modular_addition"},
        {"name": "lookup", "classes": [0, 0, 1, 2, 1, 2]},
        {"n": 1},
    ):
        given = attention_spec(**task)["task"]
        tensors = random_attention(0, len(given["classes"]), 4, 3, 4)
        assert "not a task of the attention theorem" in verdict(tensors, given).reason


def test_query_columns_are_of_one_class():
    reason = verdict(
        attention_solver(4), attention_spec()["task"], query=codebook([0, 0], [0, 0, 1, 1])
    ).reason
    assert "tokens of several classes" in reason


def test_ties_between_attended_tokens():
    """All scores alike and one logit for all: nothing is right."""
    flat = {name: (shape, [0.0] * len(v)) for name, (shape, v) in attention_solver(4).items()}
    assert proven(flat, attention_spec()["task"]) == 0


def test_bounds_are_scaled_by_one_positive_number():
    with ctx.workprec(PRECISION):
        work = Work()
        bound = scaled(Bound(arb(-1000), [[arb(500), arb(-250)], [arb(2000)]]), work)
        assert work.multiply_adds == 3 + 2  # columns, the base, the unit
        assert float(bound.base) == -0.5
        assert [[float(score) for score in of_slot] for of_slot in bound.scores] == [[0.25, -0.125], [1.0]]
        assert scaled(Bound(arb(0), [[arb(0)]]), Work()).base == 0


def test_length_is_counted():
    """By hand: V = C = D = H = 4, n = 3, columns of one token; every filling wins, so none are counted.

    With each query and each of its answers there are a base and two tables; a block has as many cells of two
    slots as there are blocks before it, and one of one slot.
    """
    length = verdict(attention_solver(4), attention_spec()["task"], rest=codebook(range(4))).length
    network = 16 + 6 * 64
    bases = (4 + 3 + 2 + 1) * 4
    worst = 4 * (4 * 1 + 6 * 2) * 3  # queries, slots of all cells, wrong answers
    tables = (10 + 10) * 16
    assert length.multiply_adds == network + bases + worst + tables
    assert length.evaluations == 4 * (1 + 2 * 4)

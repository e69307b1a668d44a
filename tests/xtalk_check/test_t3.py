"""T3: margins, not only answers, against the exact network; and everything that is proven is true."""

import random
from itertools import product
from math import inf

import pytest
from flint import arb, ctx
from reference.product_space import (
    ACTIVATIONS,
    certificate,
    codebook,
    container,
    count_right,
    encoded,
    logits,
    random_network,
    right_answer,
    solver,
    spec,
)
from xtalk_check import check
from xtalk_check.activations import activation
from xtalk_check.counting import Bound, certified_fillings, doubtful
from xtalk_check.errors import Rejected
from xtalk_check.network import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.rounding import slack
from xtalk_check.t3 import Codebook, Moving, _bounds, _neuron
from xtalk_check.tasks import Cell, Partition, Slot, Task
from xtalk_check.work import PRECISION, Work

SIX = {"classes": [0, 1, 2, 3, 3, 1]}
FULL = {"anchor": codebook(range(6)), "rest": codebook(range(6))}
TOKENS = {"anchor": codebook([0, 1, 2, 3, 3, 1]), "rest": codebook([0] * 6)}
LOSSY = {"anchor": codebook([0, 1, 2, 3, 3, 1]), "rest": codebook([0, 0, 0], [0, 0, 1, 2, 2, 1])}


def proven(tensors, task: dict, theorem: str = "T3", **advice) -> int:
    """What a check proves; whatever is claimed is at most that."""
    weights = container(tensors)
    total = Task.read(Fields({k: task[k] for k in ("name", "n", "answers", "classes", "ties")}, "task")).total
    given = encoded(certificate(weights, theorem, 0, total, **advice))
    verdict = check(given, encoded(spec(theorem, **task)), weights)
    assert verdict.verdict == "accepted", verdict.reason
    return verdict.proven["certified"]


def test_brute_force_counts_what_is_right():
    for i, (activation_, name) in enumerate(
        product(ACTIVATIONS, ("max", "min", "majority", "modular_addition"))
    ):
        tensors = random_network(i, 4, 3, 6, 3)
        classes = [0, 1, 2, 1]
        task = spec(name=name, answers=3, classes=classes, activation=activation_, residual=i % 2 == 0)[
            "task"
        ]
        assert proven(tensors, task, "brute_force") == count_right(tensors, task)[0]
    lookup = spec(name="lookup", answers=3, classes=[0, 0, 0, 1, 2, 1, 0, 2])["task"]
    tensors = random_network(9, 8, 3, 6, 3)
    assert proven(tensors, lookup, "brute_force") == count_right(tensors, lookup)[0]


def test_one_block_for_each_token_is_brute_force():
    for seed, name in enumerate(("max", "min", "modular_addition")):
        tensors = random_network(seed, 6, 4, 5, 4)
        task = spec(**SIX, name=name, n=3, activation="gelu", residual=True)["task"]
        assert proven(tensors, task, **FULL, bits=4) == proven(tensors, task, "brute_force")


def test_no_more_is_proven_than_is_true():
    proofs = 0
    for seed in range(24):
        tensors = random_network(seed, 6, 4, 5, 4, scale=0.3 + 0.02 * seed)
        name = ("max", "min", "majority")[seed % 3]
        kind = tuple(ACTIVATIONS)[seed // 3 % 3]
        task = spec(**SIX, name=name, n=3, activation=kind, residual=seed % 2 == 0)["task"]
        true = count_right(tensors, task)[0]
        for advice in (TOKENS, LOSSY):
            certified = proven(tensors, task, **advice, bits=6)
            assert certified <= true
            proofs += certified > 0
    assert proofs >= 12


def test_a_solver_is_certified_and_a_broken_one_is_not():
    task = spec()["task"]
    tensors = solver(4)
    assert count_right(tensors, task) == (64, 64)
    one_block, pairs = {"rest": codebook([0] * 4)}, {"rest": codebook([0, 0, 1, 1])}
    assert proven(tensors, task, **one_block) >= 40
    assert proven(tensors, task, **pairs) >= proven(tensors, task, **one_block)
    assert proven(tensors, task, rest=codebook(range(4))) == 64
    shape, values = tensors["unembed"]
    swapped = tensors | {"unembed": (shape, values[4:8] + values[:4] + values[8:])}
    right = count_right(swapped, task)[0]
    assert proven(swapped, task, rest=codebook(range(4))) == right < 64


def bounds_of(tensors, task: dict, advice: dict):
    """Task, network, codebooks and every cell with its bounds."""
    with ctx.workprec(PRECISION):
        weights, work = parse_weights(container(tensors)), Work()
        fields = Fields(dict(task), "task")
        question = Task.read(fields)
        network = Network.load(fields, weights, len(question.classes), question.answers, work)
        needed = slack(fields, lambda: network.rounding_error(weights, question.n, work))
        books = [Partition.read(Fields(advice[name], name), len(question.classes)) for name in advice]
        codebooks, cells = [Codebook.of(book, network, work) for book in books], []
        for cell in question.cells(*books):
            bases, scores = _bounds(cell, codebooks, network, network.ahead(cell.answer), work)
            wrong = (answer for answer in range(question.answers) if answer != cell.answer)
            cells.append(
                (
                    cell,
                    {
                        answer: Bound(
                            bases[answer] - needed, [[row[answer] for row in of_slot] for of_slot in scores]
                        )
                        for answer in wrong
                    },
                )
            )
    return question, books, cells


def gaps(tensors, task: dict, advice: dict):
    """True margin and its bound, for every filling of every cell and every wrong answer."""
    question, books, cells = bounds_of(tensors, task, advice)
    vocabulary = range(len(question.classes))
    for cell, bounds in cells:
        positions = [i for i, slot in enumerate(cell.slots) for _ in range(slot.copies)]
        choices = [
            [t for t in vocabulary if books[cell.slots[i].codebook].columns[t] in cell.slots[i].columns]
            for i in positions
        ]
        for tokens in product(*choices):
            found = logits(tensors, tokens, task["activation"], task["residual"])
            for wrong, bound in bounds.items():
                score = float(bound.base.lower())
                for i, t in zip(positions, tokens, strict=True):
                    slot = cell.slots[i]
                    score += float(
                        bound.scores[i][slot.columns.index(books[slot.codebook].columns[t])].lower()
                    )
                yield found[cell.answer] - found[wrong], score


def test_margins_are_bounded_below():
    tightest = inf
    for seed, (kind, advice) in enumerate(product(ACTIVATIONS, (TOKENS, LOSSY, FULL))):
        tensors = random_network(100 + seed, 6, 4, 5, 4)
        task = spec(**SIX, n=3, activation=kind, residual=seed % 2 == 0)["task"]
        for true, bound in gaps(tensors, task, advice):
            assert bound <= true + 1e-9, (kind, advice)
            tightest = min(tightest, true - bound)
            if advice is FULL:
                assert true - bound < 1e-6
    assert tightest < 1e-6


def test_margins_of_lookup_and_majority():
    lookup = spec(name="lookup", answers=3, classes=[0, 0, 0, 1, 2, 1, 0, 2], activation="gelu")["task"]
    advice = {"anchor": codebook(range(8)), "rest": codebook([0] * 8)}
    for true, bound in gaps(random_network(7, 8, 3, 6, 3), lookup, advice):
        assert bound <= true + 1e-9
    majority = spec(**SIX, name="majority", n=4, residual=True)["task"]
    for true, bound in gaps(random_network(8, 6, 4, 5, 4), majority, TOKENS):
        assert bound <= true + 1e-9


def enclosed(kind: str, bias: float, slots, points) -> tuple[float, float, float]:
    """The low and high end of a neuron's sum of terms, and the true value."""
    with ctx.workprec(PRECISION):
        centre = arb(bias) + sum(copies * arb(middle) for copies, middle, _, _ in slots)
        here = activation(kind).value(centre)
        moving = [
            Moving(copies, tuple(map(arb, moves)), tuple(arb(0, r) for r in radii))
            for copies, _, moves, radii in slots
        ]
        terms = _neuron(activation(kind), centre, here, moving, Work())
    low = high = 0.0
    h, at = bias, 0
    it = iter(points)
    for copies, centre, moves, _ in slots:
        for _ in range(copies):
            chosen, offset = next(it)
            h += centre + moves[chosen] + offset
            low += float(terms[at + chosen].lower())
            high += float(terms[at + chosen].upper())
        at += len(moves)
    return float(here.lower()) + low, float(here.upper()) + high, ACTIVATIONS[kind](h)


def test_neurons_lie_between_the_ends():
    """Any activation, centres, columns and boxes: the sum of terms encloses the neuron's value."""
    rng = random.Random(1)
    for trial in range(1500):
        kind = tuple(ACTIVATIONS)[trial % 3]
        spread = rng.choice((0.05, 0.5, 3.0))
        slots = []
        for _ in range(rng.randint(1, 3)):
            moves = [rng.gauss(0, spread) for _ in range(rng.randint(1, 4))]
            moves = [0.0] if len(moves) == 1 else moves
            radii = [rng.choice((0.0, 0.0, rng.random() * spread)) for _ in moves]
            slots.append((rng.randint(1, 3), rng.gauss(0, 0.5), moves, radii))
        points = []
        for copies, _, moves, radii in slots:
            for _ in range(copies):
                i = rng.randrange(len(moves))
                points.append((i, radii[i] * rng.choice((-1, 1, rng.uniform(-1, 1)))))
        low, high, true = enclosed(kind, rng.gauss(0, 1), slots, points)
        assert low - 1e-9 <= true <= high + 1e-9, (kind, slots, points)


def test_slopes_are_those_within_reach():
    """A box is charged at the steepest slope that any filling reaches: past the kink."""
    alone = [(1, -1.0, [0.0], [1.5])]
    beside = [(1, -1.0, [-2.0, 2.0], [0.0, 0.0]), (1, 0.0, [0.0], [0.5])]
    thrice = [(3, -1 / 3, [0.0], [0.5])]
    for slots, points in ((alone, [(0, 1.5)]), (beside, [(1, 0.0), (0, 0.5)]), (thrice, [(0, 0.5)] * 3)):
        for kind in ACTIVATIONS:
            low, high, true = enclosed(kind, 0.0, slots, points)
            assert low - 1e-12 <= true <= high + 1e-12


def test_both_ends_are_reached():
    """Chord: equal moves across the kink. Tangent: moves that do not cross it. Worst ratio in (0.99, 1]."""
    slots = [(3, 0.0, [-1.0, 1.0], [0.0, 0.0])]
    _, high, true = enclosed("relu", 0.25, slots, [(1, 0.0)] * 3)
    assert 0.99 < true / high <= 1 + 1e-12
    low, _, true = enclosed("relu", 4.0, slots, [(0, 0.0)] * 3)
    assert 0.99 < low / true <= 1 + 1e-12
    worst = 0.0
    for kind in ("gelu", "gelu_tanh"):
        _, high, true = enclosed(kind, 0.5, [(2, 0.0, [-0.25, 0.25], [0.0, 0.0])], [(1, 0.0)] * 2)
        worst = max(worst, true / high)
        low, _, true = enclosed(kind, 0.5, [(2, 0.0, [-0.01, 0.01], [0.0, 0.0])], [(1, 0.0)] * 2)
        worst = max(worst, low / true)
    assert 0.99 < worst <= 1 + 1e-12


def test_where_phi_bends_both_ways():
    """Moves that reach GELU's concave parts: the ends need the bound on its concavity, and nearly touch."""
    worst = -inf
    for kind in ("gelu", "gelu_tanh"):
        for step in range(-30, 31):
            for width in (0.1, 0.4):
                slots = [(2, 0.0, [-width, width], [0.0, 0.0])]
                for points in ([(1, 0.0)] * 2, [(0, 0.0)] * 2, [(0, 0.0), (1, 0.0)]):
                    low, high, true = enclosed(kind, step / 8, slots, points)
                    assert low - 1e-12 <= true <= high + 1e-12
                    worst = max(worst, (true - high) / width**2, (low - true) / width**2)
    assert worst > -1e-3
    for copies, moves in ((3, [-0.15, -1.0]), (3, [0.15, 1.0]), (2, [-1.5, 1.2]), (2, [1.5, -1.2])):
        for step in range(-32, 33):
            for picked in product((0, 1), repeat=copies):
                points = [(i, 0.0) for i in picked]
                low, high, true = enclosed("gelu", step / 8, [(copies, 0.0, moves, [0.0, 0.0])], points)
                assert low - 1e-12 <= true <= high + 1e-12


def test_hill_climbing_inside_boxes_finds_no_counterexample():
    """Real inputs anywhere in the boxes, pushed towards the smallest margin, never pass the bound."""
    rng = random.Random(3)
    for kind in ACTIVATIONS:
        slots = [(2, 0.1, [-0.6, 0.2, 0.4], [0.2, 0.1, 0.3]), (1, -0.2, [0.0], [0.4])]
        for sign in (1, -1):
            points = [(rng.randrange(3), 0.0), (rng.randrange(3), 0.0), (0, 0.0)]
            best = inf
            for _ in range(60):
                p = rng.randrange(3)
                column, _ = points[p]
                radii = slots[0][3] if p < 2 else slots[1][3]
                column = rng.randrange(len(radii))
                moved = [*points]
                moved[p] = (column, rng.uniform(-1, 1) * radii[column])
                low, high, true = enclosed(kind, 0.3, slots, moved)
                assert low - 1e-12 <= true <= high + 1e-12
                if sign * true < best:
                    best, points = sign * true, moved


def right(copies: int, bounds, bits: int) -> int:
    """The number of fillings of a slot of two columns that are certified, for the answer 0."""
    cell = Cell(0, (Slot(1, 0, (0, 1), (1, 1), copies),), 1)
    bases = [arb(0), *(arb(base) for base, _ in bounds)]
    columns = [[arb(0), *(arb(scores[i]) for _, scores in bounds)] for i in (0, 1)]
    return certified_fillings(cell, doubtful(cell, bases, [columns], Work()), bits, Work())


def test_fillings_are_counted_with_scores_rounded_down():
    assert right(4, [(-3, [0.5625, 6.25])], 0) == 15  # four times 0.5625 is not enough
    assert right(3, [(-3.0625, [1, 2])], 0) == 4  # nor is a sum of 4
    assert right(2, [(-2.5, [1.25, 3]), (-2.5, [1.25, 3])], 1) == 3
    assert right(2, [(-2.5, [1.25, 3]), (-2.5, [1.25, 3])], 0) == 3
    assert right(2, [(-7, [1, 5]), (-7, [5, 1])], 0) == 0
    assert right(2, [(-1, [0, 9]), (-9, [0, 9])], 0) == 1
    assert right(2, [(-8, [-1, 9]), (-5, [9, 4])], 0) == 1
    assert right(2, [(-3, [1, 5]), (-3, [1, 5])], 0) == 3


def test_ties_between_sums_of_scores():
    assert right(2, [(-2, [1, 1])], 0) == 0
    assert right(2, [(-2, [1, 2])], 0) == 3
    assert right(2, [(3, [-2, 5])], 0) == 3


def test_ties_lose_against_all_at_once():
    """Each by itself fails in one of four fillings; together, they win where no sum of least scores is 0."""
    assert right(2, [(-2, [1, 1.5]), (-2, [1, 1.5])], 1) == 3


def test_codebooks_are_partitions():
    book = Partition.read(Fields(codebook([0, 1, 0], [0, 0, 1, 2, 2, 1]), "rest"), 6)
    assert [book.block(t) for t in range(6)] == [0, 0, 1, 0, 0, 1]
    assert book.members == [[0, 1], [2, 5], [3, 4]]
    for changed in (codebook([0] * 3, [0, 0, 2, 2, 0, 0]), codebook([0] * 6) | {"more": 1}):
        with pytest.raises(Rejected):
            Partition.read(Fields(changed, "rest"), 6)


def test_a_single_column_is_its_own_centre():
    """With all that its ball encloses, so that nothing of it is left over; several have an exact centre."""
    with ctx.workprec(PRECISION):
        book = Codebook([[arb(1) / 3], [arb(1)]], [[arb(0)], [arb(0)]], [])
        alone, both = (Slot(0, 0, columns, (1,) * len(columns), 2) for columns in ((0,), (0, 1)))
        assert book.centre(alone)[0].rad() > 0 and not book.moves(alone)
        assert book.moved(alone, book.centre(alone))[0].deviations[0].is_zero()
        centre = book.centre(both)
        (moving,) = book.moved(both, centre)
        assert centre[0].is_exact() and book.moves(both) and moving.copies == 2
        for column, deviation in zip(book.centres, moving.deviations, strict=True):
            assert (centre[0] + deviation).contains(column[0])


def test_right_answers_of_the_twin_and_the_checker_agree():
    task = spec(**SIX)["task"]
    for cell, _ in bounds_of(random_network(0, 6, 4, 5, 4), task, FULL)[2]:
        tokens = [column for slot in cell.slots for column in slot.columns for _ in range(slot.copies)]
        assert right_answer(task, tokens) == cell.answer


def length_of(tensors, **advice):
    """Of a check of three tokens, all of one class, so that nothing is in doubt: every cell by itself."""
    weights = container(tensors)
    given = certificate(weights, "T3", 64, 64, **advice)
    found = check(encoded(given), encoded(spec(answers=1, classes=[0] * 4)), weights)
    assert found.verdict == "accepted", found.reason
    return found.length


def test_length_is_counted_cell_by_cell():
    """V = 4, D = 3, N = 5, C = 1. The anchor block b has b tokens before it, in one block; they fill two
    positions, or one, or none. Slots: 2, 2, 1.
    """
    N, network = 5, (4 + 1) * 3 * 5 + 3
    cells = [(b, copies) for b in range(4) for copies in ((1, 2, 3) if b else (3,))]
    tensors = random_network(0, 4, 3, 5, 1)
    length, adds, evaluations = length_of(tensors, rest=codebook([0] * 4)), network, 0
    for b, copies in cells:
        adds += N * (1 + (copies < 3)) + N
        evaluations += N
        if b >= 2 and copies < 3:  # what fills the positions moves: a slot of b columns
            adds += N * b + N * (2 + 3 * b) * (copies == 1)
            evaluations += N * (b + 2 if copies == 1 else b)
    assert (length.multiply_adds, length.evaluations) == (adds, evaluations)
    lossy = codebook([0, 0], [0, 0, 1, 1])
    length, adds, evaluations = length_of(tensors, rest=lossy), network, 0
    for b, copies in cells:
        F = (0, 1, 1, 2)[b]
        adds += N * (1 + (copies < 3)) + N
        evaluations += N
        if b and copies < 3:  # boxes, those of all tokens of a column
            adds += N * F + N * (1 + F)
            evaluations += N * (1 + F)
        if F == 2 and copies == 1:
            adds += N * (2 + 3 * F)
            evaluations += N * 2
    assert (length.multiply_adds, length.evaluations) == (adds, evaluations)


def test_length_of_cells_in_which_phi_bends_both_ways():
    """GELU: three more multiply-adds for each column, where curvatures of both signs are in reach."""
    relu = length_of(random_network(0, 4, 3, 5, 1), rest=codebook([0] * 4))
    tensors = random_network(0, 4, 3, 5, 1, scale=3)
    weights = container(tensors)
    given = encoded(certificate(weights, "T3", 64, 64, rest=codebook([0] * 4)))
    found = check(given, encoded(spec(answers=1, classes=[0] * 4, activation="gelu")), weights).length
    further = found.multiply_adds - relu.multiply_adds
    assert further % 3 == 0 and 0 < further <= 3 * 5 * (2 + 3) and found.evaluations == relu.evaluations


def test_length_is_counted_where_answers_are_in_doubt():
    """Two columns in a slot of two copies; 1 and 2 units each of them, of which 3 suffice."""
    work = Work()
    cell = Cell(0, (Slot(1, 0, (0, 1), (1, 1), 2),), 1)
    bounds = doubtful(cell, [arb(0), arb(-2)], [[[arb(0), arb(1)], [arb(0), arb(2)]]], work)
    assert len(bounds) == 1 and work.multiply_adds == 1
    assert certified_fillings(cell, bounds, 0, work) == 3
    floors, products = 2 + 1, 2  # the polynomials: 1, then 1 again, for 3 - 2 is a single unit
    assert work.multiply_adds == 1 + floors + 2 * products and work.steps == 2 * 2
    work = Work()
    certified_fillings(cell, bounds * 2, 0, work)
    assert work.multiply_adds == 2 * (floors + 2 * products) + (2 + 2) + 2 * products  # and both at once

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
from xtalk_check.codebook import Codebook
from xtalk_check.counting import Bound, certified_fillings, doubtful
from xtalk_check.errors import Rejected
from xtalk_check.margins import Winning
from xtalk_check.network import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.rounding import slack
from xtalk_check.t3 import _bounds, _Column, _neuron
from xtalk_check.tasks import Cell, Slot, Task
from xtalk_check.work import PRECISION, Work

SIX = {"classes": [0, 1, 2, 3, 3, 1]}
FULL = {"anchor": codebook(range(6)), "rest": codebook(range(6))}
TOKENS = {"anchor": codebook([0, 1, 2, 3, 3, 1]), "rest": codebook([0] * 6)}
LOSSY = {"anchor": codebook([0, 1, 2, 3, 3, 1]), "rest": codebook([0, 0, 0], [0, 0, 1, 2, 2, 1])}


def proven(tensors, task: dict, theorem: str = "T3", **advice) -> int:
    """What a check proves; whatever is claimed is at most that."""
    weights = container(tensors)
    total = Task.read(Fields({k: task[k] for k in ("name", "n", "answers", "classes")}, "task")).total
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
        winning = Winning.read(
            fields, slack(fields, lambda: network.rounding_error(weights, question.n, work))
        )
        books = [Codebook.read(Fields(advice[name], name), network, work) for name in ("anchor", "rest")]
        cells = [(cell, _bounds(cell, books, network, winning, work)) for cell in question.cells(*books)]
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
            for bound in bounds:
                score = float(bound.base.lower())
                for i, t in zip(positions, tokens, strict=True):
                    slot = cell.slots[i]
                    score += float(
                        bound.scores[i][slot.columns.index(books[slot.codebook].columns[t])].lower()
                    )
                yield found[cell.answer] - found[bound.wrong], score


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
        columns = [
            _Column(copies, arb(centre), [arb(g) for g in moves], [arb(0, r) for r in radii])
            for copies, centre, moves, radii in slots
        ]
        here, *terms = _neuron(activation(kind), arb(bias), columns, Work())
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


def right(copies: int, bounds, bits: int, ties: str) -> int:
    """The number of fillings of a slot of two columns that are certified, for the answer 0."""
    cell = Cell(0, (Slot(1, 0, (0, 1), (1, 1), copies),), 1)
    given = [
        Bound(wrong + 1, arb(base), [[arb(s) for s in scores]]) for wrong, (base, scores) in enumerate(bounds)
    ]
    return certified_fillings(cell, doubtful(cell, given, Work()), Winning(ties, arb(0)), bits, Work())


def test_fillings_are_counted_with_scores_rounded_down():
    assert right(4, [(-3, [0.5625, 6.25])], 0, "lose") == 15  # four times 0.5625 is not enough
    assert right(3, [(-3.0625, [1, 1])], 0, "lowest") == 0
    assert right(2, [(-3.5, [1.25, 3]), (-3.5, [1.25, 3])], 1, "lowest") == 3
    assert right(2, [(-3.5, [1.25, 3]), (-3.5, [1.25, 3])], 0, "lowest") == 3
    assert right(2, [(-7, [1, 5]), (-7, [5, 1])], 0, "lose") == 0
    assert right(2, [(-1, [0, 9]), (-9, [0, 9])], 0, "lose") == 1
    assert right(2, [(-8, [-1, 9]), (-5, [9, 4])], 0, "lose") == 1
    assert right(2, [(-3, [1, 5]), (-3, [1, 5])], 0, "lowest") == 3


def test_ties_between_sums_of_scores():
    for ties, expected in (("lose", 0), ("lowest", 4)):
        assert right(2, [(-2, [1, 1])], 0, ties) == expected
    assert right(2, [(-2, [1, 2])], 0, "lose") == 3
    assert right(2, [(3, [-2, 5])], 0, "lose") == 3


def test_codebooks_are_partitions():
    weights = parse_weights(container(random_network(0, 6, 4, 5, 4)))
    network = Network.load(Fields({"activation": "relu", "residual": True}, "task"), weights, 6, 4, Work())
    book = Codebook.read(Fields(codebook([0, 1, 0], [0, 0, 1, 2, 2, 1]), "rest"), network, Work())
    assert [book.block(t) for t in range(6)] == [0, 0, 1, 0, 0, 1]
    for changed in (codebook([0] * 3, [0, 0, 2, 2, 0, 0]), codebook([0] * 6) | {"more": 1}):
        with pytest.raises(Rejected):
            Codebook.read(Fields(changed, "rest"), network, Work())


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
    positions, or one, or none. Slots and columns: 2 and 1 + b, the same, 1 and 1.
    """
    N, network = 5, (4 + 1) * 3 * 5 + 3
    cells = [(b, copies) for b in range(4) for copies in ((1, 2, 3) if b else (3,))]

    def shape(b: int, copies: int, before: int) -> tuple[int, int]:
        return (1, 1) if copies == 3 else (2, 1 + before)

    tensors = random_network(0, 4, 3, 5, 1)
    length, adds, evaluations = length_of(tensors, rest=codebook([0] * 4)), network, 0
    for b, copies in cells:
        S, F = shape(b, copies, b)
        adds += N * (S + F + 1)
        evaluations += N
        if b >= 2 and copies < 3:  # what fills the positions moves
            adds += N * (2 * S + 3 * F) * (copies == 1)
            evaluations += N * (F + 2 if copies == 1 else b)
    assert (length.multiply_adds, length.evaluations) == (adds, evaluations)
    lossy = codebook([0, 0], [0, 0, 1, 1])
    length, adds, evaluations = length_of(tensors, rest=lossy), network, 0
    for b, copies in cells:
        before = (0, 1, 1, 2)[b]
        S, F = shape(b, copies, before)
        adds += N * (S + F + 1) + N * (S + F) * (copies < 3)  # boxes
        evaluations += N + N * (copies < 3)
        if before == 2 and copies < 3:
            adds += N * (2 * S + 3 * F) * (copies == 1)
            evaluations += N * (F + 2 if copies == 1 else before)
    assert (length.multiply_adds, length.evaluations) == (adds, evaluations)


def test_length_of_cells_in_which_phi_bends_both_ways():
    """GELU: three more multiply-adds for each column, where curvatures of both signs are in reach."""
    relu = length_of(random_network(0, 4, 3, 5, 1), rest=codebook([0] * 4))
    tensors = random_network(0, 4, 3, 5, 1, scale=3)
    weights = container(tensors)
    given = encoded(certificate(weights, "T3", 64, 64, rest=codebook([0] * 4)))
    found = check(given, encoded(spec(answers=1, classes=[0] * 4, activation="gelu")), weights).length
    further = found.multiply_adds - relu.multiply_adds
    assert further % 3 == 0 and 0 < further <= 3 * 5 * (3 + 4) and found.evaluations == relu.evaluations


def test_length_is_counted_where_answers_are_in_doubt():
    """Two columns in a slot of two copies; 1 and 2 units each of them, of which 3 suffice."""
    work = Work()
    cell = Cell(0, (Slot(1, 0, (0, 1), (1, 1), 2),), 1)
    given = [Bound(1, arb(-2), [[arb(1), arb(2)]])]
    assert doubtful(cell, given, work) and work.multiply_adds == 1
    assert certified_fillings(cell, given, Winning("lose", arb(0)), 0, work) == 3
    floors, products = 2 + 1, 2  # the polynomials: 1, then 1 again, for 3 - 2 is a single unit
    assert work.multiply_adds == 1 + floors + 2 * products and work.steps == 2 * 2
    work = Work()
    certified_fillings(cell, given * 2, Winning("lose", arb(0)), 0, work)
    assert work.multiply_adds == 2 * (floors + 2 * products) + (2 + 2) + 2 * products  # and both at once

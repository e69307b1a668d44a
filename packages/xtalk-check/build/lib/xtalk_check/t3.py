"""T3: how many sequences of a product space are answered right, from features and their interactions."""

from dataclasses import dataclass

from flint import arb, arb_mat

from xtalk_check.activations import Activation
from xtalk_check.codebook import Codebook
from xtalk_check.counting import Bound, certified_fillings, doubtful
from xtalk_check.margins import Winning, settle
from xtalk_check.network import Network
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import slack
from xtalk_check.tasks import Cell, Slot, Task
from xtalk_check.work import Work, hull, rows

SMALL = arb(2) ** -6  # of the widest slot: no slot's weight is less


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count sequences on which the network's answer is right, cell by cell.

    Postcondition: at least `certified` of the `total` sequences that have an answer are answered right.
    Complexity: for each cell with F columns in its S slots, at most N (F (C + 7) + C + 4 S) + S C
    multiply-adds and (F + 4) N evaluations, however many tokens stand behind the columns; and where a cell's
    answer is in doubt, those of `certified_fillings`. Proof: docs/proofs/theory.md, theorem T3.
    """
    question = Task.read(task)
    network = Network.load(task, weights, len(question.classes), question.answers, work)
    winning = Winning.read(task, slack(task, lambda: network.rounding_error(weights, question.n, work)))
    anchor, rest = (Codebook.read(advice.fields(name), network, work) for name in ("anchor", "rest"))
    beside = question.name == "majority"  # where the tokens beside those of each class are gone through
    work.spend(steps=len(question.classes) * len(set(question.classes)) * beside)
    size = question.size(anchor, rest, work.budget.work)
    least = len(network.b_hidden) * (size.cells + size.columns) * network.classes
    work.plan(least + size.cells + size.slots, "going through every cell")
    bits = advice.integer("bits", 0, 20)
    certified = 0
    for cell in question.cells(anchor, rest):
        bounds = doubtful(cell, _bounds(cell, [anchor, rest], network, winning, work), work)
        certified += cell.arrangements * certified_fillings(cell, bounds, winning, bits, work)
    return settle(claim, certified, question.total)


def _bounds(
    cell: Cell, codebooks: list[Codebook], network: Network, winning: Winning, work: Work
) -> list[Bound]:
    """Bound the margin over each wrong answer on every filling of a cell.

    Proof: docs/proofs/theory.md, lemma "cell". Complexity: that of `prove`.
    """
    right = cell.answer
    columns = sum(len(slot.columns) for slot in cell.slots)
    work.fit(4 * (columns + 1) * len(network.b_hidden), "a cell")
    table = [
        _neuron(network.phi, bias, [_at(slot, codebooks[slot.codebook], k) for slot in cell.slots], work)
        for k, bias in enumerate(network.b_hidden)
    ]
    bounds: list[Bound] = []
    for wrong, margin in enumerate(rows(work.product(network.ahead(right, work), arb_mat(table)))):
        if wrong == right:
            continue
        terms = iter(margin)
        base = next(terms) + network.b_logit[right] - network.b_logit[wrong] - winning.slack
        direct = [[codebooks[slot.codebook].direct[i] for i in slot.columns] for slot in cell.slots]
        scores = [[next(terms) + logit[right] - logit[wrong] for logit in of_slot] for of_slot in direct]
        bounds.append(Bound(wrong, base, scores))
    return bounds


@dataclass(frozen=True)
class _Column:
    """A slot at one neuron: each column's deviation from the slot's centre, and the box around it."""

    copies: int
    centre: arb
    deviations: list[arb]
    boxes: list[arb]


def _at(slot: Slot, codebook: Codebook, k: int) -> _Column:
    """A slot at neuron k, centred on the mean of its columns, or exactly on its only column."""
    values = [codebook.centres[i][k] for i in slot.columns]
    centre = values[0] if len(values) == 1 else (sum(values, arb(0)) / len(values)).mid()
    deviations = [arb(0) if value is centre else value - centre for value in values]
    return _Column(slot.copies, centre, deviations, [codebook.boxes[i][k] for i in slot.columns])


def _neuron(phi: Activation, bias: arb, slots: list[_Column], work: Work) -> list[arb]:
    """Enclose a neuron's value by a sum: phi at the centre, then a term for each column of each slot.

    Postcondition: whatever column fills each position, and wherever in its box, phi(h) is in the first entry
    plus the positions' terms. Proof: docs/proofs/theory.md, lemmas "chord", "tangent" and "residual".
    """
    work.spend(len(slots), evaluations=1)
    centre = bias + sum((slot.centre * slot.copies for slot in slots), arb(0))
    here = phi.value(centre)
    terms = _steps(phi, centre, here, slots, work)
    boxes = [box for slot in slots for box in slot.boxes]
    if not all(box.is_zero() for box in boxes):
        work.spend(len(slots) + len(boxes), evaluations=1)
        reach = centre
        for slot in slots:
            reach += (hull([arb(0), *slot.deviations]) + hull([arb(0), *slot.boxes])) * slot.copies
        slope = phi.ranges(reach).slope
        terms = [term + slope * box for term, box in zip(terms, boxes, strict=True)]
    return [here, *terms]


def _steps(phi: Activation, centre: arb, here: arb, slots: list[_Column], work: Work) -> list[arb]:
    """Enclose phi(centre + sum of deviations) - phi(centre) by a sum of one term for each position.

    One free position: exact. Several: between tangent and chord, where each position has a weight, and the
    weights sum to 1. Proof: docs/proofs/theory.md, lemmas "tangent" and "chord".
    """
    free = [len(slot.deviations) > 1 for slot in slots]
    if sum(slot.copies for slot, moves in zip(slots, free, strict=True) if moves) <= 1:
        return [
            work.evaluate(phi.value, [centre + g])[0] - here if moves else g
            for slot, moves in zip(slots, free, strict=True)
            for g in slot.deviations
        ]
    widths = [hull([arb(0), *slot.deviations]).rad() for slot in slots]
    least = (hull(widths).upper() + SMALL) * SMALL
    weights = [w + least if moves else arb(0) for w, moves in zip(widths, free, strict=True)]
    work.spend(2 * len(slots) + 3 * sum(len(slot.deviations) for slot in slots), evaluations=2)
    total = sum((w * slot.copies for slot, w in zip(slots, weights, strict=True)), arb(0))
    shares = [w / total for w in weights]
    moved = [(g, share) for slot, share in zip(slots, shares, strict=True) for g in slot.deviations]
    ahead = [g / weight if weight > 0 else g for g, weight in moved]
    curvature, slope = phi.ranges(centre + hull([arb(0), *ahead])).curvature, phi.slope(centre)
    values = work.evaluate(phi.value, [centre + g for g in ahead])
    tangents = [slope * g for g, _ in moved]
    chords = [(value - here) * weight for value, (_, weight) in zip(values, moved, strict=True)]
    if curvature is None or curvature >= 0:
        return [a.union(b) for a, b in zip(tangents, chords, strict=True)]
    work.spend(3 * len(moved))
    bends = [g * further / 2 for (g, _), further in zip(moved, ahead, strict=True)]
    concave, convex = (-curvature).upper(), curvature.upper().max(arb(0))
    if convex < concave:
        tangents, chords, concave = chords, tangents, convex
    return [
        (a - concave * bend).union(b + concave * bend)
        for a, b, bend in zip(tangents, chords, bends, strict=True)
    ]

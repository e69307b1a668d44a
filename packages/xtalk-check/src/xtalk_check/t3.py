"""T3: how many sequences of a product space are answered right, from features and their interactions.

Brute force is T3 with every token a column and a block of its own: each set of tokens is a cell, and nothing
in it moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from flint import arb, arb_mat

from xtalk_check import limits
from xtalk_check.activations import Activation
from xtalk_check.claims import settle
from xtalk_check.counting import certified_fillings, doubtful
from xtalk_check.network import Network
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import slack
from xtalk_check.tasks import Cell, Partition, Slot, Task
from xtalk_check.work import Row, Work, hull, hulls, lead, plus, rows

SMALL = arb(2) ** -6  # of the widest slot: no slot's weight is less


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count sequences on which the network's answer is right, from the certificate's two codebooks.

    Postcondition: at least `certified` of the `total` sequences that have an answer are answered right.
    Complexity: that of `count`. Proof: docs/proofs/theory.md, theorem T3.
    """
    question = Task.read(task)
    books = [Partition.read(advice.fields(name), len(question.classes)) for name in ("anchor", "rest")]
    return count(question, books, advice.integer("bits", 0, 20), task, claim, weights, work)


def brute_force(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count the sequences on which the network's answer is right, one by one.

    Postcondition: as above. Complexity: for each sequence (up to order, where that does not matter) at most
    n (N + C) + N C multiply-adds and N evaluations; where it is not answered right, some n C more.
    Proof: docs/proofs/theory.md, "Brute force".
    """
    question = Task.read(task)
    alone = Partition(range(len(question.classes)), range(len(question.classes)))
    return count(question, [alone, alone], 0, task, claim, weights, work)


def count(
    question: Task,
    books: list[Partition],
    bits: int,
    task: Fields,
    claim: Fields,
    weights: Weights,
    work: Work,
) -> dict[str, int]:
    """Count sequences that are answered right cell by cell, with an anchor's and a rest's partition.

    Complexity: for each cell of S slots N (S + C) + S C multiply-adds and N evaluations; where F columns
    in S' of the slots move, at most N (F (C + 7) + 3 S') and N (F + 3) more, however many tokens stand behind
    the columns; and where a cell's answer is in doubt, those of `certified_fillings`.
    """
    network = Network.load(task, weights, len(question.classes), question.answers, work)
    hidden, classes, certified = len(network.b_hidden), len(network.b_logit), 0
    needed = slack(task, lambda: network.rounding_error(weights, question.n, work))
    if question.name == "majority":  # the tokens of other classes are gone through for each
        work.spend(steps=len(question.classes) * len(set(question.classes)))
    size = limits.count(question.parts(*books), work.budget.work)
    least = hidden * (size.cells * (classes + limits.EVALUATION) + (size.columns - size.slots) * classes)
    work.plan(least + hidden * size.slots, "going through every cell")
    codebooks, ahead = [Codebook.of(book, network, work) for book in books], lru_cache(1)(network.ahead)
    for cell in question.cells(*books):
        bases, scores = _bounds(cell, codebooks, network, ahead(cell.answer), work)
        bounds = doubtful(cell, [base - needed for base in bases], scores, work)
        certified += cell.arrangements * certified_fillings(cell, bounds, bits, work)
    return settle(claim, certified, question.total)


@dataclass(frozen=True)
class Codebook:
    """What encloses all tokens of each column: a centre and a box, and a ball around the direct logits.

    For each token t of column i and each neuron k, hidden[t][k] is in centres[i][k] + boxes[i][k], and
    direct[t][c] is in direct[i][c] for each class c. Boxes of single tokens are exactly 0.
    """

    centres: list[Row]
    boxes: list[Row]
    direct: list[Row]

    @classmethod
    def of(cls, partition: Partition, network: Network, work: Work) -> "Codebook":
        """Compute it from all tokens. Cost: V (N + C) unions of balls, none where each is a column."""
        book, members = cls([], [], []), partition.members
        work.hold(len(members) * (2 * len(network.b_hidden) + len(network.b_logit)), "a codebook")
        for own in members:
            balls = hulls(network.hidden[token] for token in own)
            centre = balls if len(own) == 1 else [ball.mid() for ball in balls]
            book.centres.append(centre)
            book.boxes.append(apart(balls, centre))
            book.direct.append(hulls(network.direct[token] for token in own))
        return book

    def moves(self, slot: Slot) -> bool:
        """Whether it matters to the neurons what fills a slot: not where that is always the same token."""
        return len(slot.columns) > 1 or any(not box.is_zero() for i in slot.columns for box in self.boxes[i])

    def centre(self, slot: Slot) -> Row:
        """A slot's centre at each neuron: the mean of its columns, or exactly its only column."""
        columns = [self.centres[i] for i in slot.columns]
        if len(columns) == 1:
            return columns[0]
        return [(sum(values, arb(0)) / len(values)).mid() for values in zip(*columns, strict=True)]

    def moved(self, slot: Slot, centre: Row) -> "list[Moving]":
        """A slot with that centre, at each neuron."""
        moves = zip(*(apart(self.centres[i], centre) for i in slot.columns), strict=True)
        boxes = zip(*(self.boxes[i] for i in slot.columns), strict=True)
        return [Moving(slot.copies, *at) for at in zip(moves, boxes, strict=True)]


class Moving(NamedTuple):
    """A slot at one neuron: each column's deviation from the slot's centre, and the box around it."""

    copies: int
    deviations: tuple[arb, ...]
    boxes: tuple[arb, ...]


def apart(row: Row, centre: Row) -> Row:
    """What is left of numbers without their centres; exactly 0 where a number is its own centre."""
    return [arb(0) if a is b else a - b for a, b in zip(row, centre, strict=True)]


def _bounds(
    cell: Cell, books: list[Codebook], network: Network, ahead: arb_mat, work: Work
) -> tuple[Row, list[list[Row]]]:
    """Bound the margin over each answer on every filling: a base, and a score for each slot's columns.

    `ahead` says by how much neurons put the right answer ahead (N x C). Proof: docs/proofs/theory.md, lemma
    "cell". Complexity: that of `count`.
    """
    hidden, moving, terms = network.b_hidden, list[list[Moving]](), iter(list[Row]())
    work.spend(len(cell.slots) * len(hidden))
    for slot in cell.slots:
        book = books[slot.codebook]
        centre = book.centre(slot)
        hidden = [h + g * slot.copies for h, g in zip(hidden, centre, strict=True)]
        if book.moves(slot):
            work.fit(4 * (1 + len(slot.columns)) * len(hidden), "a cell")
            moving.append(book.moved(slot, centre))
    here = work.evaluate(network.phi.value, hidden)
    bases = plus(work.product(arb_mat([here]), ahead).entries(), lead(network.b_logit, cell.answer))
    if moving:
        at = zip(hidden, here, zip(*moving, strict=True), strict=True)
        table = [_neuron(network.phi, centre, value, slots, work) for centre, value, slots in at]
        terms = iter(rows(work.product(arb_mat(table).transpose(), ahead)))
    scores: list[list[Row]] = []
    for slot in cell.slots:
        book = books[slot.codebook]
        direct = [lead(book.direct[i], cell.answer) for i in slot.columns]
        scores.append([plus(next(terms), row) for row in direct] if book.moves(slot) else direct)
    return bases, scores


def _neuron(phi: Activation, centre: arb, here: arb, slots: Sequence[Moving], work: Work) -> Row:
    """Enclose by a sum what slots do to a neuron: a term for each column of each slot.

    Precondition: `here` is phi at the centre. Postcondition: whatever column fills each position, and
    wherever in its box, phi(h) is in `here` plus the positions' terms.
    Proof: docs/proofs/theory.md, lemmas "chord", "tangent" and "residual".
    """
    terms = _steps(phi, centre, here, slots, work)
    boxes = [box for slot in slots for box in slot.boxes]
    if not all(box.is_zero() for box in boxes):
        work.spend(len(slots) + len(boxes), evaluations=1)
        reach = centre
        for slot in slots:
            reach += (hull([arb(0), *slot.deviations]) + hull([arb(0), *slot.boxes])) * slot.copies
        slope = phi.ranges(reach).slope
        terms = [term + slope * box for term, box in zip(terms, boxes, strict=True)]
    return terms


def _steps(phi: Activation, centre: arb, here: arb, slots: Sequence[Moving], work: Work) -> Row:
    """Enclose phi(centre + sum of deviations) - phi(centre) by a sum of one term for each position.

    One free position: exact. Several: between tangent and chord, where each position has a weight, and the
    weights sum to 1. Proof: docs/proofs/theory.md, lemmas "tangent" and "chord".
    """
    free = [len(slot.deviations) > 1 for slot in slots]
    if sum(slot.copies for slot, moves in zip(slots, free, strict=True) if moves) <= 1:
        values = work.evaluate(phi.value, (centre + g for slot in slots for g in slot.deviations))
        return [value - here for value in values]
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

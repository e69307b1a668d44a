"""From bounds on margins to a count of sequences, by the sums of their tokens' scores, in exact integers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from flint import arb, fmpz_poly

from xtalk_check.errors import Rejected
from xtalk_check.margins import Winning
from xtalk_check.tasks import Cell
from xtalk_check.work import Work, floor, smallest

WIDEST = 1 << 16  # of a sum of scores

Scored = tuple[list[tuple[int, int]], int]
"""A slot: each score with the number of its tokens, and the number of copies."""


@dataclass(frozen=True)
class Bound:
    """The margin over a wrong answer, less the slack: at least base + a score for each position's column.

    `scores` has a list for each slot. The lower ends of the balls count.
    """

    wrong: int
    base: arb
    scores: list[list[arb]]


def doubtful(cell: Cell, bounds: Sequence[Bound], work: Work) -> list[Bound]:
    """The wrong answers over which not even the worst filling of a cell certainly wins.

    Cost: for S slots S multiply-adds for each bound.
    """
    work.spend(len(bounds) * len(cell.slots))
    return [
        bound
        for bound in bounds
        if not sum(
            (slot.copies * smallest(s) for slot, s in zip(cell.slots, bound.scores, strict=True)), bound.base
        )
        > 0
    ]


def certified_fillings(cell: Cell, bounds: list[Bound], winning: Winning, bits: int, work: Work) -> int:
    """A lower bound on the number of fillings of a cell that are answered right.

    Precondition: over other answers than those of `bounds`, every filling wins. Either the failures against
    each are added up, or the fillings are counted that win by the tokens' least scores against all; with
    scores in units of 2^-bits. Cost: for F columns F + 1 multiply-adds for each bound, F + 1 more for each,
    and F, where there are two, beside those of `successes`. Proof: docs/proofs/theory.md, lemma "counting".
    """
    columns = sum(len(slot.columns) for slot in cell.slots)
    work.spend(len(bounds) * (columns + 1))

    def scored(scores: Iterable[Iterable[arb]]) -> list[Scored]:
        return [
            ([(floor(s, bits), t) for s, t in zip(of_slot, slot.tokens, strict=True)], slot.copies)
            for slot, of_slot in zip(cell.slots, scores, strict=True)
        ]

    least = [winning.least(cell.answer, bound.wrong) for bound in bounds]
    certified = cell.fillings
    for bound, needed in zip(bounds, least, strict=True):
        certified += successes(scored(bound.scores), needed - floor(bound.base, bits), work) - cell.fillings
    if len(bounds) < 2:
        return certified
    work.spend(len(bounds) + columns)
    positions = sum(slot.copies for slot in cell.slots)
    shares = [bound.base / positions for bound in bounds]
    spread = [
        [[score + share for score in of_slot] for of_slot in bound.scores]
        for bound, share in zip(bounds, shares, strict=True)
    ]
    shared = (map(smallest, zip(*of_slot, strict=True)) for of_slot in zip(*spread, strict=True))
    return max(certified, successes(scored(shared), max(least), work))


def successes(slots: list[Scored], least: int, work: Work) -> int:
    """The number of fillings of the slots whose sum of scores is at least `least`.

    Counted are the fillings that fall short, with the other scores that are not hopeless.
    Complexity: for each position as many multiply-adds as its slot has scores, for each coefficient so far,
    of which there are at most as many as units between the least sum and the one that suffices.
    Proof: docs/proofs/theory.md, lemma "counting".
    """
    best = sum(max(tokens)[0] * copies for tokens, copies in slots)
    slots = [(_hopeful(tokens, least - best + max(tokens)[0]), copies) for tokens, copies in slots]
    if not all(tokens for tokens, _ in slots):
        return 0
    fillings = prod(sum(t for _, t in tokens) ** copies for tokens, copies in slots)
    needed = least - sum(min(tokens)[0] * copies for tokens, copies in slots)
    if needed <= 0:
        return fillings
    if needed > WIDEST:
        raise Rejected(f"sums of scores range over {needed} units; choose fewer bits")
    ways = fmpz_poly([1])
    for tokens, copies in slots:
        lowest, coefficients = min(tokens)[0], [0] * needed
        for score, count in tokens:
            if score - lowest < needed:
                coefficients[score - lowest] += count
        for _ in range(copies):
            work.spend(len(ways) * len(tokens), steps=2 * needed)
            ways = ways.mul_low(fmpz_poly(coefficients), needed)
    return fillings - sum(int(ways[i]) for i in range(len(ways)))


def _hopeful(tokens: list[tuple[int, int]], least: int) -> list[tuple[int, int]]:
    """Without the scores that fall short beside the best of all other positions."""
    return [(score, count) for score, count in tokens if score >= least]

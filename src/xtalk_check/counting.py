"""Counting sequences by the sum of their tokens' scores, in exact integers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flint import fmpz_poly

from xtalk_check.errors import Rejected
from xtalk_check.work import Work

WIDEST = 1 << 16  # of a sum of scores


@dataclass(frozen=True)
class Scored:
    """A slot: `copies` positions, each filled with one of tokens[i] tokens of score scores[i]."""

    scores: Sequence[int]
    tokens: Sequence[int]
    copies: int


def successes(slots: Iterable[Scored], least: int, work: Work) -> int:
    """The number of fillings of the slots whose sum of scores is at least `least`.

    Complexity: products of polynomials of degree up to the range of the sum, one for each position.
    Proof: docs/proofs.md, lemma "counting".
    """
    slots = [_without_hopeless(slot, slots_, least) for slots_ in [list(slots)] for slot in slots_]
    if not all(slot.scores for slot in slots):
        return 0
    needed = least - sum(min(slot.scores) * slot.copies for slot in slots)
    if needed > WIDEST:
        raise Rejected(f"sums of scores range over {needed} units; choose fewer bits")
    ways = fmpz_poly([1])
    for slot in slots:
        lowest, coefficients = min(slot.scores), [0] * (max(needed, 0) + 1)
        for score, tokens in zip(slot.scores, slot.tokens, strict=True):
            coefficients[min(score - lowest, max(needed, 0))] += tokens
        for _ in range(slot.copies):
            work.multiply_adds += len(ways) * len(slot.scores)
            ways = ways * fmpz_poly(coefficients)
    return sum(int(ways[i]) for i in range(max(needed, 0), len(ways)))


def _without_hopeless(slot: Scored, slots: Sequence[Scored], least: int) -> Scored:
    """The slot without scores that fall short beside the best of all others."""
    best = sum(max(other.scores) * other.copies for other in slots) - max(slot.scores)
    kept = [(s, t) for s, t in zip(slot.scores, slot.tokens, strict=True) if s + best >= least]
    return Scored([s for s, _ in kept], [t for _, t in kept], slot.copies)

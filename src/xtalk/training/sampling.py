"""What of its penalties a step counts: a part, drawn so that the expected gradient is that of the whole.

A penalty is a mean over MLPs, and one that runs the model on costs a pass through the blocks above for each
of them: a step that counts all costs the square of the model's depth. A step that counts one, drawn with the
same probability for each, has that mean as its expectation, and so has its gradient. A penalty for several
numbers of kept contributions is a mean over those, of which a step counts one in the same way.
"""

from dataclasses import dataclass

import numpy as np

from xtalk.interactions.penalties import FEW_HOT

FEW = 4
"""Up to this number all MLPs count, unless a configuration says otherwise.

Measured on the embedded model, of four: a draw's noise costs more than it saves (docs/method.md).
"""


@dataclass(frozen=True)
class Draw:
    """What a step counts; by default everything.

    place: the MLP whose splices stand for all; None: all. few: how many contributions the penalties keep that
    train for several numbers, the mean over these; None among them: all contributions.
    """

    place: int | None = None
    few: tuple[int | None, ...] = FEW_HOT


EVERYTHING = Draw()


def draw(count: int, sample: bool | None, seed: int, step: int) -> Draw:
    """The draw of a step, of `count` MLPs. A function of its arguments alone, the same on every rank."""
    return Draw(drawn(count, sample, seed, step), (drawn_few(seed, step),))


def drawn(count: int, sample: bool | None, seed: int, step: int) -> int | None:
    """The place of the MLP that a step draws; None where all `count` take part."""
    draws = count > FEW if sample is None else sample and count > 0
    return drawn_place(count, seed, step) if draws else None


def drawn_place(count: int, seed: int, step: int) -> int:
    """The place, among `count` MLPs, of the one whose penalties a step counts.

    Each has the probability 1 / count, so that its penalty, unweighted, has the mean over all as expectation.
    Every `count` steps take each place once, in an order of their own, which evens out the draws' noise. A
    function of its arguments alone: training that goes on from a checkpoint draws the same.
    """
    turn, place = divmod(step, count)
    return int(np.random.default_rng([seed, turn]).permutation(count)[place])


def drawn_few(seed: int, step: int) -> int | None:
    """One of FEW_HOT: each once in as many steps, in an order that has nothing to do with that of places."""
    turn, place = divmod(step, len(FEW_HOT))
    return FEW_HOT[int(np.random.default_rng([seed, turn, 1]).permutation(len(FEW_HOT))[place])]

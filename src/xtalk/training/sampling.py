"""Which MLP's penalties a step counts: one, drawn so that the expected gradient is that of the mean over all.

A penalty is a mean over MLPs, and one that runs the model on costs a pass through the blocks above for each
of them: a step that counts all costs the square of the model's depth. A step that counts one, drawn with the
same probability for each, has that mean as its expectation, and so has its gradient.
"""

import numpy as np

FEW = 4
"""Up to this number all MLPs count, unless a configuration says otherwise.

Measured on the embedded model, of four: a draw's noise costs more than it saves (docs/method.md).
"""


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

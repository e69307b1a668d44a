"""What rounding can change: docs/proofs/theory.md, "Rounding"."""

from collections.abc import Callable, Iterable
from functools import reduce

from flint import arb, arb_mat

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields, Weights
from xtalk_check.work import Work, rows

UNIT = arb(2) ** -24  # of float32, rounding to nearest
FUNCTION_ERROR = arb(2) ** -20  # assumed of deployed functions: of phi relative to |h|, of exp to its value
UNDERFLOW = arb(2) ** -100  # assumed to exceed what underflow adds to any one number

Rounded = tuple[arb_mat, arb_mat]
"""Bounds on the absolute values of a row of numbers, and on the errors of the deployed ones."""


def slack(task: Fields, error: Callable[[], arb]) -> arb:
    """How far rounding can move a margin: not at all if the specification asks about real numbers."""
    return arb(0) if task.choice("arithmetic", "real", "float32") == "real" else 2 * error()


def logit_error(steepest: arb, residual: bool, x: Rounded, weights: Weights, work: Work) -> arb:
    """A bound on |deployed logit - logit|, for every logit of an MLP on x, whose phi has no steeper slope.

    Precondition: the deployed network computes the MLP's formula in float32 with rounding to nearest, each
    sum in any order, with or without fused multiply-adds, without overflow, with errors of phi and of
    underflow within the constants above. Cost: 2 (D N + N D + D C) multiply-adds.
    """
    w_in, w_out = (weights.matrix(name, None, None) for name in ("w_in", "w_out"))
    h, error = layer(x, w_in, weights.vector("b_in", None), w_in.nrows() + 1, work)
    active = h, error * steepest + (h + error) * FUNCTION_ERROR + tiny(h.ncols())
    y = layer(active, w_out, weights.vector("b_out", None), w_out.nrows() + 2, work)
    return unembedded(beside(y, x, w_out.nrows() + 2) if residual else y, weights, work)


def beside(y: Rounded, x: Rounded, terms: int) -> Rounded:
    """A layer's output and the residual stream, which is one more term of the layer's sum."""
    return y[0] + x[0], y[1] + x[1] + (x[0] + x[1]) * gamma(terms)


def unembedded(y: Rounded, weights: Weights, work: Work) -> arb:
    """The largest error of a logit."""
    unembed = weights.matrix("unembed", None, None)
    _, error = layer(y, unembed, weights.vector("b_unembed", None), unembed.nrows() + 1, work)
    return reduce(arb.max, error.entries())


def layer(x: Rounded, w: arb_mat, bias: Iterable[arb], terms: int, work: Work) -> Rounded:
    """A sum of that many products and biases for each column of w."""
    exact = work.product(x[0], absolute(w)) + absolute(arb_mat(1, w.ncols(), bias))
    carried = work.product(x[1], absolute(w))
    return exact, carried + (exact + carried) * gamma(terms) + tiny(w.ncols())


def largest(matrix: arb_mat) -> arb_mat:
    """The largest absolute value in each column, as a row."""
    columns = rows(absolute(matrix).transpose())
    return arb_mat([[reduce(arb.max, column) for column in columns]])


def gamma(terms: int) -> arb:
    """The relative error of a sum of that many products in any order: Higham 2002, lemma 3.1."""
    if terms >= 1 << 23:
        raise Rejected(f"sums of {terms} terms have no useful bound on their rounding")
    return terms * UNIT / (1 - terms * UNIT)


def tiny(width: int) -> arb_mat:
    """What underflow may add to each of that many numbers."""
    return arb_mat(1, width, [UNDERFLOW] * width)


def absolute(matrix: arb_mat) -> arb_mat:
    """Every entry without its sign."""
    return arb_mat(matrix.nrows(), matrix.ncols(), [abs(entry) for entry in matrix.entries()])

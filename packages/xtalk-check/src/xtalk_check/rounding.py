"""What rounding can change: docs/proofs/theory.md, "Rounding"."""

from collections.abc import Iterable
from functools import reduce

from flint import arb, arb_mat

from xtalk_check.activations import EVERYWHERE
from xtalk_check.errors import Rejected
from xtalk_check.network import Network
from xtalk_check.reading import Fields, Weights
from xtalk_check.work import Work, rows

UNIT = arb(2) ** -24  # of float32, rounding to nearest
ACTIVATION_ERROR = arb(2) ** -20  # assumed of the deployed activation function, relative to |h|
UNDERFLOW = arb(2) ** -100  # assumed to exceed what underflow adds to any one number


def slack(task: Fields, network: Network, weights: Weights, n: int, work: Work) -> arb:
    """How far rounding can move a margin: not at all if the specification asks about real numbers."""
    exact = task.choice("arithmetic", "real", "float32") == "real"
    return arb(0) if exact else 2 * rounding_error(network, weights, n, work)


def rounding_error(network: Network, weights: Weights, n: int, work: Work) -> arb:
    """A bound on |deployed logit - logit|, for every logit of every sequence of n tokens.

    Precondition: the deployed network computes the formula of network.py in float32 with rounding to nearest,
    each sum in any order, with or without fused multiply-adds, without overflow, with errors of phi and of
    underflow within the constants above. Cost: 3 (D N + N D + D C) multiply-adds.
    """
    embed, w_in, w_out, unembed = (
        _absolute(weights.matrix(name, None, None)) for name in ("embed", "w_in", "w_out", "unembed")
    )
    size, hidden = w_in.nrows(), w_in.ncols()

    def layer(
        inputs: arb_mat, error: arb_mat, w: arb_mat, bias: Iterable[arb], terms: int
    ) -> tuple[arb_mat, arb_mat]:
        """Bounds on the outputs and on their errors, of a sum of that many products."""
        exact = work.product(inputs, w) + _absolute(arb_mat(1, w.ncols(), bias))
        carried = work.product(error, w)
        return exact, carried + (exact + carried) * _gamma(terms) + _tiny(w.ncols())

    largest = [reduce(arb.max, entries) for entries in rows(embed.transpose())]
    x = arb_mat(1, size, largest) * n
    x_error = x * _gamma(n) + _tiny(size)
    h, h_error = layer(x, x_error, w_in, weights.vector("b_in", hidden), size + 1)
    slope = network.phi.ranges(EVERYWHERE).slope.abs_upper()
    reached = h + h_error
    active_error = h_error * slope + reached * ACTIVATION_ERROR + _tiny(hidden)
    y, y_error = layer(h, active_error, w_out, weights.vector("b_out", size), hidden + 2)
    if network.residual:
        y_error = y_error + x_error + (x + x_error) * _gamma(hidden + 2)
        y = y + x
    _, error = layer(y, y_error, unembed, weights.vector("b_unembed", None), size + 1)
    return reduce(arb.max, error.entries())


def _gamma(terms: int) -> arb:
    """The relative error of a sum of that many products in any order: Higham 2002, lemma 3.1."""
    if terms >= 1 << 23:
        raise Rejected(f"sums of {terms} terms have no useful bound on their rounding")
    return terms * UNIT / (1 - terms * UNIT)


def _tiny(width: int) -> arb_mat:
    """What underflow may add to each of that many numbers."""
    return arb_mat(1, width, [UNDERFLOW] * width)


def _absolute(matrix: arb_mat) -> arb_mat:
    return arb_mat(matrix.nrows(), matrix.ncols(), [abs(entry) for entry in matrix.entries()])

"""What rounding can change: docs/proofs/theory.md, "Rounding".

Preconditions of each bound: the deployed network computes the formula in float32 with rounding to nearest,
each sum in any order, with or without fused multiply-adds, without overflow, with errors of its functions and
of underflow within the constants below.
"""

from collections.abc import Callable
from functools import reduce

from flint import arb, arb_mat

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields, Weights
from xtalk_check.work import Work, rows

UNIT = arb(2) ** -24  # of float32, rounding to nearest
FUNCTION_ERROR = arb(2) ** -20  # assumed of deployed functions: of phi relative to |h|, of exp to its value
UNDERFLOW = arb(2) ** -100  # assumed to exceed what underflow adds to any one number

# Bounds on the absolute values of a row of numbers, and on the errors of the deployed ones.
Rounded = tuple[arb_mat, arb_mat]


def slack(task: Fields, error: Callable[[], arb]) -> arb:
    """How far rounding can move a margin: not at all if the specification asks about real numbers."""
    return arb(0) if task.choice("arithmetic", "real", "float32") == "real" else 2 * error()


def of_mlp(steepest: arb, residual: bool, x: Rounded, weights: Weights, work: Work) -> arb:
    """A bound on |deployed logit - logit|, for every logit of an MLP on x, whose phi has no steeper slope.

    Cost: 2 (D N + N D + D C) multiply-adds.
    """
    h, error = layer(x, "w_in", "b_in", 1, weights, work)
    active = h, error * steepest + (h + error) * FUNCTION_ERROR + tiny(h.ncols())
    return of_output(active, x, residual, weights, work)


def of_attention(residual: bool, n: int, weights: Weights, work: Work) -> arb:
    """A bound on |deployed logit - logit|, for every logit of a head on every sequence of n tokens.

    Cost: that of `of_softmax`, 2 (D H + H D + D C), and an evaluation. Proof: lemma "softmax".
    """
    embed = largest(weights.matrix("embed", None, None))
    x = embed, embed * 0
    grown = work.evaluate(arb.exp, [of_softmax(x, n, weights, work)])[0] - 1 + 4 * n * UNDERFLOW
    mixed = embed, embed * (grown + (1 + grown) * gamma(n)) + tiny(embed.ncols())
    return of_output(layer(mixed, "w_value", None, 0, weights, work), x, residual, weights, work)


def of_softmax(x: Rounded, n: int, weights: Weights, work: Work) -> arb:
    """A bound on |log(deployed weight / weight)|, but for 4 UNDERFLOW, of a softmax over n rows x.

    Precondition: the deployed softmax is exp(s - max s), each within FUNCTION_ERROR of itself, divided by
    their sum. A bound of more than 10 says nothing. Cost: 4 D H + 3 H. Proof: lemma "softmax".
    """
    (q, q_error), (k, k_error) = (layer(x, name, None, 0, weights, work) for name in ("w_query", "w_key"))
    work.spend(3 * q.ncols())
    score = (q * k.transpose())[0, 0]
    carried = (q_error * (k + k_error).transpose() + q * k_error.transpose())[0, 0]
    score_error = carried + (score + carried) * gamma(q.ncols()) + UNDERFLOW
    exponent = score_error + 2 * (score + score_error) * UNIT + 2 * FUNCTION_ERROR
    return 2 * (exponent + gamma(n + 2))


def of_output(units: Rounded, x: Rounded, residual: bool, weights: Weights, work: Work) -> arb:
    """The largest error of a logit, from a layer's units, and the residual stream: a term more of its sum."""
    y, error = layer(units, "w_out", "b_out", 2, weights, work)
    if residual:
        error += x[1] + (x[0] + x[1]) * gamma(units[0].ncols() + 2)
        y += x[0]
    _, error = layer((y, error), "unembed", "b_unembed", 1, weights, work)
    return reduce(arb.max, error.entries())


def layer(x: Rounded, name: str, bias: str | None, beside: int, weights: Weights, work: Work) -> Rounded:
    """A sum of products, and as many other terms, for each column of those weights."""
    w = absolute(weights.matrix(name, None, None))
    exact, carried = work.product(x[0], w), work.product(x[1], w)
    if bias is not None:
        exact += absolute(arb_mat(1, w.ncols(), weights.vector(bias, None)))
    return exact, carried + (exact + carried) * gamma(w.nrows() + beside) + tiny(w.ncols())


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

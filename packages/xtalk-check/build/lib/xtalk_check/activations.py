"""Activation functions with proven enclosures of their values, slopes and curvatures.

A ball stands for every number in it, in arguments and results; a slope at a kink is every subgradient.
Proofs: docs/proofs/theory.md, "Activation functions".
"""

from functools import cache
from typing import NamedTuple, TypeAlias, TypeVar

from flint import arb, arb_series, ctx

from xtalk_check.errors import Rejected
from xtalk_check.work import PRECISION

PIECES = 16  # per unit length
REACH = 10  # pieces cover [-REACH, REACH]
TERMS = 7  # of the Taylor polynomial on a piece; the last coefficient is enclosed over the whole piece

CELL = arb(0, arb(1) / (2 * PIECES))  # a piece, around its centre
EVERYWHERE = arb(0, 1 << 100)
with ctx.workprec(PRECISION):
    ROOT, TANH_SCALE, TANH_CUBE = arb(0.5).sqrt(), (arb(2) / arb.pi()).sqrt(), arb(44715) / 1000000

Number = TypeVar("Number", arb, arb_series)
Activation: TypeAlias = "Relu | Gelu"


class Ranges(NamedTuple):
    """Over an interval: phi' lies in `slope`, and phi'' in `curvature`.

    None: the interval may hold a kink, and phi is convex.
    """

    slope: arb
    curvature: arb | None


@cache
def activation(name: str) -> Activation:
    """The activation function relu, gelu (with erf) or gelu_tanh."""
    return {"relu": Relu, "gelu": Gelu, "gelu_tanh": GeluTanh}[name]()


class Relu:
    """max(x, 0): convex, with a kink at 0."""

    def value(self, x: arb) -> arb:
        """max(x, 0)."""
        return x.max(arb(0))

    def slope(self, x: arb) -> arb:
        """0 below the kink, 1 above it, [0, 1] where x may be 0."""
        return arb(1) if x > 0 else arb(0) if x < 0 else arb(0).union(arb(1))

    def ranges(self, x: arb) -> Ranges:
        """The slope as above; linear unless the ball may hold the kink."""
        return Ranges(self.slope(x), arb(0) if x > 0 or x < 0 else None)


class Gelu:
    """x Phi(x); the ranges of slope and curvature are tabulated in pieces of length 1/PIECES.

    Further out than REACH, slope and curvature are within 2^-60 of (0 or 1) and 0: lemma "tails".
    """

    def __init__(self) -> None:
        with ctx.workprec(PRECISION):
            slopes = [_derivative(self._piece(piece)) for piece in range(2 * REACH * PIECES)]
            curvatures = [_derivative(slope) for slope in slopes]
            tail = arb(0, arb(2) ** -60)
            self._slopes = _unions([tail, *(_evaluate(slope, CELL) for slope in slopes), tail + 1])
            self._curvatures = _unions([tail, *(_evaluate(bend, CELL) for bend in curvatures), tail])

    def value(self, x: Number) -> Number:
        """The activation of a ball or of a power series."""
        return x * ((x * ROOT).erf() + 1) * arb(0.5)

    def slope(self, x: arb) -> arb:
        """phi'(x): by a power series, which a ball no wider than a piece keeps finite, else by the ranges."""
        if abs(x) < REACH and x.rad() <= CELL.rad():
            return self.value(arb_series([x, 1], prec=2))[1]
        return self.ranges(x).slope

    def ranges(self, x: arb) -> Ranges:
        """The unions over the pieces that the ball meets."""
        first, last = _row(x.lower()), _row(x.upper())
        level = (last - first + 1).bit_length() - 1
        other = last + 1 - (1 << level)
        slopes, curvatures = self._slopes[level], self._curvatures[level]
        return Ranges(slopes[first].union(slopes[other]), curvatures[first].union(curvatures[other]))

    def _piece(self, piece: int) -> list[arb]:
        """Taylor coefficients of phi at the piece's centre, the last one enclosed over the piece."""
        centre = arb(2 * piece + 1) / (2 * PIECES) - REACH
        at_centre = self.value(arb_series([centre, 1], prec=TERMS))
        over_piece = self.value(arb_series([centre + CELL, 1], prec=TERMS))
        return [at_centre[i] for i in range(TERMS - 1)] + [over_piece[TERMS - 1]]


class GeluTanh(Gelu):
    """x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 + exp(-2u))."""

    def value(self, x: Number) -> Number:
        """The activation of a ball or of a power series."""
        u = (x + x * x * x * TANH_CUBE) * TANH_SCALE
        return x / ((u * -2).exp() + 1)


def _evaluate(coefficients: list[arb], offset: arb) -> arb:
    """The polynomial, by Horner's rule."""
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * offset + coefficient
    return value


def _derivative(coefficients: list[arb]) -> list[arb]:
    return [i * coefficient for i, coefficient in enumerate(coefficients)][1:]


def _row(end: arb) -> int:
    """The row of the tables that holds the number `end`: the first and the last are the tails."""
    if end >= REACH:
        return 2 * REACH * PIECES + 1
    if end < -REACH:
        return 0
    piece = (end * PIECES).floor().unique_fmpz()
    if piece is None:
        raise Rejected("a pre-activation is not a finite number")
    return int(piece) + REACH * PIECES + 1


def _unions(balls: list[arb]) -> list[list[arb]]:
    """Entry [level][i] is the union of 2^level balls from i on."""
    levels = [balls]
    while len(levels[-1]) > 1 << (len(levels) - 1):
        last, half = levels[-1], 1 << (len(levels) - 1)
        levels.append([a.union(b) for a, b in zip(last, last[half:], strict=False)])
    return levels

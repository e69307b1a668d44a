"""Activation functions: every enclosure holds the number it is about, and little more."""

import math
import random

import pytest
from flint import arb, arb_series, ctx
from reference.product_space import ACTIVATIONS
from xtalk_check.activations import (
    CELL,
    EVERYWHERE,
    PIECES,
    REACH,
    Gelu,
    GeluTanh,
    Relu,
    activation,
)
from xtalk_check.errors import Rejected
from xtalk_check.work import PRECISION

SMOOTH = ("gelu", "gelu_tanh")


def derivatives(name: str, x: float) -> tuple[float, float]:
    """phi' and phi'' of GELU as written in textbooks."""
    if name == "gelu":
        pdf = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return (1 + math.erf(x / math.sqrt(2))) / 2 + x * pdf, (2 - x * x) * pdf
    c = math.sqrt(2 / math.pi)
    t, u1, u2 = math.tanh(c * (x + 0.044715 * x**3)), c * (1 + 3 * 0.044715 * x * x), c * 6 * 0.044715 * x
    return (1 + t) / 2 + x * (1 - t * t) * u1 / 2, (1 - t * t) * (u1 + x * (u2 - 2 * t * u1 * u1) / 2)


def inside(ball: arb, number: float, slack: float = 1e-9) -> bool:
    return float(ball.lower()) - slack <= number <= float(ball.upper()) + slack


def test_values_and_slopes():
    for name, function in ACTIVATIONS.items():
        phi = activation(name)
        for x in [-12.0, -3.0, -0.75, -1e-3, 0.5, 2.0, 6.0, 11.0]:
            assert inside(phi.value(arb(x)), function(x), 1e-12), (name, x)
            slope = derivatives(name, x)[0] if name in SMOOTH else float(x > 0)
            assert inside(phi.slope(arb(x)), slope), (name, x)
            assert phi.slope(arb(x)).rad() < 1e-9


def test_ranges_hold_every_derivative_and_are_tight():
    rng = random.Random(0)
    for name in SMOOTH:
        phi = activation(name)
        for _ in range(60):
            low, high = sorted(rng.uniform(-11, 11) for _ in range(2))
            slope, curvature = phi.ranges(arb(low).union(arb(high)))
            seen = [derivatives(name, low + (high - low) * i / 400) for i in range(401)]
            assert all(inside(slope, first) and inside(curvature, second) for first, second in seen)
            assert (
                float(slope.upper() - slope.lower()) < max(f for f, _ in seen) - min(f for f, _ in seen) + 0.2
            )
            assert float(curvature.upper()) < max(s for _, s in seen) + 0.25


def test_ranges_over_one_piece_reach_its_ends():
    for name in SMOOTH:
        for left in [-2.0, -0.0625, 0.0, 1.0, 1.9375]:
            ball = arb(left + 1 / (2 * PIECES)) + CELL * arb(0.999)
            slope, curvature = activation(name).ranges(ball)
            for x in (left, left + 1 / PIECES):
                first, second = derivatives(name, x)
                assert inside(slope, first, 1e-5) and inside(curvature, second, 1e-5)


def test_pieces_hold_their_ends_and_little_more():
    """Both derivatives at the ends of every piece of some, and no more beyond them than its width squared."""
    with ctx.workprec(PRECISION):
        for phi in (Gelu(), GeluTanh()):
            for piece in (0, 400, 513, 641, 700, 769, 2 * REACH * PIECES - 1):
                slope, curvature = phi._piece(piece)
                ends = [arb(at) / PIECES - REACH for at in (piece, piece + 1)]
                series = [phi.value(arb_series([end, 1], prec=3)) for end in ends]
                for found, exact in (
                    (slope, [s[1] for s in series]),
                    (curvature, [2 * s[2] for s in series]),
                ):
                    assert all(found.contains(number.mid()) for number in exact)
                    assert found.rad() < abs(exact[0] - exact[1]) / 2 + arb(32) / PIECES**2


def test_global_constants():
    """The suprema of |phi'| and |phi''|, which the ranges over the whole line must exceed, barely."""
    for name, steepest, bent in [("gelu", 1.12890, 0.79788), ("gelu_tanh", 1.12899, 0.79788)]:
        slope, curvature = activation(name).ranges(arb(0, 1000))
        assert steepest < float(slope.upper()) < steepest + 1e-3
        assert 1 - steepest - 1e-3 < float(slope.lower()) < 1 - steepest + 2e-5
        assert bent < float(curvature.upper()) < bent + 3e-3
        found = max(derivatives(name, i / 1000)[0] for i in range(3000))
        assert steepest < found < steepest + 1e-5


def test_tails():
    """Beyond REACH the table says: slope within 2^-60 of 0 or 1, curvature of 0."""
    for name in SMOOTH:
        phi = activation(name)
        for x in (REACH, -REACH, 15, -15, 40, -40):
            with ctx.workprec(256):
                series = phi.value(arb_series([arb(x), 1], prec=3))
            assert abs(series[1] - (x > 0)) < arb(2) ** -60
            assert abs(series[2] * 2) < arb(2) ** -60
        far = phi.ranges(arb(REACH + 1).union(arb(10**6)))
        assert far.slope.contains(arb(1)) and far.slope.upper() < 1.0001 and far.slope.lower() > 0.9999
        near = phi.ranges(arb(-(10**6)).union(arb(-REACH - 1)))
        assert near.slope.contains(arb(0)) and near.slope.upper() < 0.0001
        assert abs(far.curvature).upper() < 1e-9


def test_relu_at_its_kink():
    phi = activation("relu")
    assert phi.ranges(arb(-1, 0.5)).slope == 0 and phi.ranges(arb(-1, 0.5)).curvature == 0
    assert phi.ranges(arb(1, 0.5)).slope == 1 and phi.ranges(arb(1, 0.5)).curvature == 0
    across = phi.ranges(arb(0, 1))
    assert across.slope.contains(arb(0)) and across.slope.contains(arb(1)) and across.curvature is None
    assert phi.slope(arb(0)).contains(arb(1)) and phi.slope(arb(0)).contains(arb(0))


def test_slopes_of_wide_and_far_balls():
    """Where a power series would divide by a ball around 0: far out, and over many pieces."""
    for name in SMOOTH:
        phi = activation(name)
        for ball in (arb(0, 8), arb(3, 2), arb(2) ** 200, -(arb(2) ** 200), arb(0, arb(2) ** 200)):
            slope = phi.slope(ball)
            for at in (ball.mid(), ball.lower(), ball.upper()):
                x = float(at.max(arb(-20)).min(arb(20)).mid())
                assert inside(slope, derivatives(name, x)[0])


def test_ranges_beside_the_edge_of_a_piece():
    """A number that is all but an edge, of more bits than the sum with REACH would have."""
    for name in SMOOTH:
        for edge in (0, 1 / PIECES, -3):
            for ball in (arb(edge, arb(2) ** -90), arb(edge) - arb(2) ** -90):
                slope, curvature = activation(name).ranges(ball)
                first, second = derivatives(name, edge)
                assert inside(slope, first, 1e-6) and inside(curvature, second, 1e-6)
                assert slope.rad() < 0.1


def test_what_is_not_finite_is_refused():
    with pytest.raises(Rejected, match="not a finite number"), ctx.workprec(64):
        activation("gelu").ranges(arb("nan"))


def test_far_out_ranges_are_those_of_the_tails():
    with ctx.workprec(PRECISION):
        for phi in (Gelu(), GeluTanh()):
            for x, slope in ((10, 1), (50, 1), (-50, 0), (-11, 0)):
                found = phi.ranges(arb(x))
                assert found.slope.contains(arb(slope)) and found.curvature.contains(arb(0))
                for end in (found.slope - slope, found.curvature):
                    assert end.abs_upper() < arb(2) ** -30
            everywhere = phi.ranges(EVERYWHERE).slope
            assert (
                everywhere.contains(arb(1)) and everywhere.upper() > 1.1289 and everywhere.lower() < -0.1289
            )


def test_relu_bends_only_at_its_kink():
    """Balls that hold 0 and balls that do not, however close."""
    for x, slopes, bends in (
        (arb(1), [1], False),
        (arb(-1), [0], False),
        (arb(2) ** -60, [1], False),
        (-(arb(2) ** -60), [0], False),
        (arb(0), [0, 1], True),
        (arb(0.5, 0.75), [0, 1], True),
        (arb(-0.5, 0.75), [0, 1], True),
        (arb(-0.5, 0.25), [0], False),
    ):
        found = Relu().ranges(x)
        assert all(found.slope.contains(arb(slope)) for slope in slopes)
        assert (found.curvature is None) == bends and (bends or found.slope == slopes[0])

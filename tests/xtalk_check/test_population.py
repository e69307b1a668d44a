"""Empirical Bernstein: coverage by simulation and counting, and claims against the formula."""

import math
import random
from itertools import product
from math import prod

import pytest
from flint import arb, ctx
from xtalk_check.errors import Rejected
from xtalk_check.population import MILLION, SLOPES, claimed_population, mean_bound
from xtalk_check.reading import Fields
from xtalk_check.work import PRECISION, Work


def bound(losses, risk: int) -> float:
    with ctx.workprec(PRECISION):
        return float(mean_bound([arb(loss) for loss in losses], risk).upper())


def by_hand(losses, risk: int) -> float:
    """The same in float64, slope by slope."""
    n, total, squares = len(losses), sum(losses), sum(loss * loss for loss in losses)
    doubt = math.log(SLOPES * MILLION / risk)
    return min(
        (total + ((-math.log(1 - slope) - slope) * squares + doubt) / slope) / n
        for slope in (2.0**-i for i in range(1, SLOPES + 1))
    )


def test_mean_bounds_are_those_of_the_formula():
    rng = random.Random(0)
    for n in (2, 40, 500):
        for scale in (0.0, 0.1, 1.0):
            losses = [rng.random() * scale for _ in range(n)]
            assert bound(losses, 10_000) == pytest.approx(by_hand(losses, 10_000), rel=1e-12)


def test_mean_bounds_hold_in_all_but_so_many_draws_exactly():
    """Every outcome of few draws of a loss of three values, with its probability; the risk is large."""
    for values, chances in (((0.0, 0.5, 1.0), (0.8, 0.1, 0.1)), ((0.0, 0.25, 1.0), (0.02, 0.08, 0.9))):
        mean = sum(v * p for v, p in zip(values, chances, strict=True))
        for n, risk in ((3, 900_000), (6, 500_000), (7, 900_000)):
            missed = sum(
                prod(chances[i] for i in drawn)
                for drawn in product(range(3), repeat=n)
                if by_hand([values[i] for i in drawn], risk) < mean
            )
            assert missed <= risk / MILLION


def test_mean_bounds_hold_in_all_but_so_many_draws_by_simulation():
    """2,000 draws of 300; a bound at a quarter of its distance would be missed far too often."""
    rng, risk, missed, too_often = random.Random(0), 100_000, 0, 0
    values, chances = (0.0, 0.3, 1.0), (0.85, 0.1, 0.05)
    mean = sum(v * p for v, p in zip(values, chances, strict=True))
    for _ in range(2000):
        losses = rng.choices(values, chances, k=300)
        found, average = by_hand(losses, risk), sum(losses) / 300
        missed += found < mean
        too_often += average + (found - average) / 4 < mean
    assert missed <= 2000 * risk / MILLION < too_often


def claimed(task: dict, margins, right: int, **claim) -> dict[str, int]:
    with ctx.workprec(PRECISION):
        fields = Fields(task, "task"), Fields({"population_accuracy": 0} | claim, "claim")
        return claimed_population(*fields, right, [arb(m) for m in margins], Work())


def test_ramp_losses_are_those_of_the_margins():
    """Not ahead: 1. Ahead by half the ramp: 1/2. By the ramp and more: 0."""
    margins = [-3.0, 0.0, 1.0, 2.0, 5.0] + [9.0] * 395
    task = {"risk": 50_000, "ramp": 2000}
    proven = math.ceil(by_hand([1.0, 1.0, 0.5, 0.0, 0.0] + [0.0] * 395, 50_000) * MILLION)
    found = claimed(task, margins, 398, population_ramp_loss=proven)
    assert found == {"population_accuracy": 0, "population_ramp_loss": proven}
    with pytest.raises(Rejected, match=f"{proven} is proven"):
        claimed(task, margins, 398, population_ramp_loss=proven - 1)


def test_a_loss_of_one_is_always_true():
    """The bound of few draws is above 1, and so is no news."""
    assert (
        claimed({"risk": 10, "ramp": 1}, [1.0], 1, population_ramp_loss=MILLION)["population_ramp_loss"]
        == MILLION
    )
    with pytest.raises(Rejected, match="is proven"):
        claimed({"risk": 10, "ramp": 1}, [1.0], 1, population_ramp_loss=MILLION - 1)


def test_what_balls_cannot_decide_is_not_proven():
    """One right of one proves an accuracy of the risk itself, at most; and the ball of that is as wide."""
    for accuracy, reason in ((49_999, ""), (50_000, "do not prove it"), (50_001, "do not prove it")):
        if reason:
            with pytest.raises(Rejected, match=reason):
                claimed({"risk": 50_000, "ramp": None}, [1.0], 1, population_accuracy=accuracy)
        else:
            assert claimed({"risk": 50_000, "ramp": None}, [1.0], 1, population_accuracy=accuracy)


def test_risks_are_chances():
    for risk in (0, MILLION, -1):
        with pytest.raises(Rejected, match="from 1 to 999999"):
            claimed({"risk": risk, "ramp": None}, [1.0], 1)


def test_a_loss_needs_a_risk():
    assert claimed({"risk": None, "ramp": None}, [1.0], 1) == {}
    with pytest.raises(Rejected, match="gives no risk"):
        claimed({"risk": None, "ramp": 1000}, [1.0], 1)
    for ramp, reason in ((0, "from 1 to"), (-5, "from 1 to"), (True, "expected an integer")):
        with pytest.raises(Rejected, match=reason):
            claimed({"risk": 50_000, "ramp": ramp}, [1.0], 1)
    with pytest.raises(Rejected, match="lacks population_ramp_loss"):
        claimed({"risk": 50_000, "ramp": 1000}, [1.0], 1)

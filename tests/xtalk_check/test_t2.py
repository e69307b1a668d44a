"""T2: every point of a region gets its answer, hunted for counterexamples; and membership is verified."""

import random
from itertools import product
from math import sqrt

import pytest
from flint import arb, ctx
from reference.finite_data import finite_spec, logits, random_problem
from reference.product_space import ACTIVATIONS, certificate, container, encoded
from xtalk_check import check
from xtalk_check.finite import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.t2 import Region
from xtalk_check.work import PRECISION, Work

LABELS = [0, 1, 2, 1, 0]
BITS, UNIT = 8, 2.0**-8
FEATURES = [[256, 64], [-32, 128], [90, -200]]
KINDS = ("gelu", "gelu_tanh")


def asked(tensors, labels=LABELS, **task) -> dict:
    return finite_spec(tensors, labels, **task) | {"theorem": "T2"}


def verdict(tensors, regions, codes, certified=0, labels=LABELS, spec=None, **advice):
    given = {
        "bits": BITS,
        "base": [10, -20],
        "features": FEATURES,
        "regions": regions,
        "codes": codes,
    } | advice
    made = certificate(container(tensors), "T2", certified, len(labels), **given)
    return check(encoded(made), encoded(spec or asked(tensors, labels)), container(tensors))


def logits_at(tensors, x, kind: str, residual: bool) -> list[float]:
    """The network's logits at any x: that of an input whose embedding is x."""
    width = len(x)
    moved = tensors | {
        "data.inputs": ((1, width), list(x)),
        "embed": ((width, width), [float(i == j) for i in range(width) for j in range(width)]),
        "b_embed": ((width,), [0.0] * width),
    }
    return logits(moved, 0, kind, residual)


def bounds(tensors, row, kind="gelu", residual=True) -> list[float]:
    with ctx.workprec(PRECISION):
        task = Fields(asked(tensors, activation=kind, residual=residual)["task"], "task")
        network = Network.load(task, parse_weights(container(tensors)), Work())
        features = [[arb(entry) * UNIT for entry in feature] for feature in FEATURES]
        region = Region.read(row, features, 3, arb(UNIT))
        found = region.margins(network, [arb(10) * UNIT, arb(-20) * UNIT], features, Work())
        return [float(margin.lower()) for margin in found]


def point(row, strengths, residual) -> list[float]:
    """base + sum_i s_i f_i + e, strengths as shares of the way through the box."""
    x = [10 * UNIT + residual[0], -20 * UNIT + residual[1]]
    for share, i, low, high in zip(strengths, row[2::3], row[3::3], row[4::3], strict=True):
        strength = (low + share * (high - low)) * UNIT
        x = [a + strength * f * UNIT for a, f in zip(x, FEATURES[i], strict=True)]
    return x


def margins_at(tensors, row, strengths, residual, kind, path) -> list[float]:
    found = logits_at(tensors, point(row, strengths, residual), kind, path)
    return [found[row[0]] - other for other in found]


def test_hill_climbing_inside_regions_finds_no_counterexample():
    """Corners, and climbs from random points, in boxes and balls, small and large; small ones are tight."""
    rng, closest = random.Random(0), []
    for trial in range(30):
        tensors, kind, path = random_problem(trial), KINDS[trial % 2], trial % 3 > 0
        size = (4, 40, 200)[trial // 10]
        radius = rng.choice((0, size))
        row = [
            trial % 3,
            radius,
            *(e for i in rng.sample(range(3), trial % 4) for e in (i, -size, size // 2)),
        ]
        low = bounds(tensors, row, kind, path)
        for wrong in range(3):
            best = float("inf")
            for _ in range(4):
                strengths = [rng.choice((0.0, 1.0)) for _ in row[2::3]]
                for step in range(25):
                    moved = [min(1.0, max(0.0, s + rng.gauss(0, 0.3) * (step > 0))) for s in strengths]
                    angle = (rng.gauss(0, 1), rng.gauss(0, 1))
                    length = radius * UNIT / max(1e-9, sqrt(angle[0] ** 2 + angle[1] ** 2))
                    tried = (angle[0] * length, angle[1] * length)
                    margin = margins_at(tensors, row, moved, tried, kind, path)[wrong]
                    assert margin >= low[wrong] - 1e-9
                    if margin < best:
                        best, strengths = margin, moved
            if wrong != row[0] and size == 4:
                closest.append(best - low[wrong])
    assert min(closest) < 1e-3


def test_a_point_is_bounded_exactly():
    for kind in KINDS:
        for path in (True, False):
            tensors, row = random_problem(3), [1, 0, 0, 77, 77, 2, -30, -30]
            low = bounds(tensors, row, kind, path)
            assert low == pytest.approx(margins_at(tensors, row, (0, 0), (0, 0), kind, path), abs=1e-9)


def one_neuron(out: float) -> dict:
    return random_problem(0, D=2, N=1, C=3) | {
        "w_in": ((2, 1), [1.0, 0.0]),
        "b_in": ((1,), [-10 * UNIT]),  # so that the base is at 0, where GELU bends most
        "w_out": ((1, 2), [out, 0.0]),
        "b_out": ((2,), [0.0, 0.0]),
        "unembed": ((2, 3), [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        "b_unembed": ((3,), [0.0, 0.0, 0.0]),
    }


def test_tangents_and_curvature_are_charged_what_they_can_cost():
    """One neuron at 0, where GELU bends most: a box and a ball lose there what they are charged, nearly."""
    for row, ends in (
        ([0, 4], [((), (4 * UNIT, 0.0)), ((), (-4 * UNIT, 0.0))]),
        ([0, 0, 0, -4, 4], [((0.0,), (0.0, 0.0)), ((1.0,), (0.0, 0.0))]),
    ):
        tensors = one_neuron(1.0)
        middle = margins_at(tensors, row, (0.5,) * (len(row) // 4), (0.0, 0.0), "gelu", False)[1]
        charged = middle - bounds(tensors, row, "gelu", False)[1]
        lost = middle - min(margins_at(tensors, row, *end, "gelu", False)[1] for end in ends)
        assert 0.99 < lost / charged <= 1 + 1e-12


def test_bends_are_those_within_reach():
    """At 1.414 GELU does not bend, but over 0 it does; the residual path takes away its slope."""
    tensors = one_neuron(1.0) | {
        "b_in": ((1,), [1.4140625 - 10 * UNIT]),
        "w_out": ((1, 2), [0.0, 1.0]),
        "unembed": ((2, 3), [0.0, -1.37890625, 0.0, 0.0, 1.0, 0.0]),
    }
    row = [0, 0, 0, -362, 362]
    for kind in KINDS:
        low = bounds(tensors, row, kind)[1]
        for step in range(21):
            assert low <= margins_at(tensors, row, (step / 20,), (0.0, 0.0), kind, True)[1]


def test_curvature_is_that_of_the_whole_reach():
    """One neuron anywhere on GELU, which reads the ball in half, full, or four times: at every point."""
    for scale, bias, out in product((0.5, 1.0, 4.0), (-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6), (1.0, -1.0)):
        tensors = one_neuron(out) | {
            "w_in": ((2, 1), [scale, 0.0]),
            "b_in": ((1,), [bias - 10 * UNIT * scale]),
        }
        for radius in (8, 64, 512):
            low = bounds(tensors, [0, radius], "gelu", False)[1]
            for step in range(-8, 9):
                there = margins_at(tensors, [0, radius], (), (step / 8 * radius * UNIT, 0.0), "gelu", False)
                assert low <= there[1] + 1e-12, (scale, bias, out, radius, step)


def test_inputs_count_where_they_lie_in_a_region_of_their_label():
    tensors = random_problem(5)
    with ctx.workprec(PRECISION):
        task = Fields(asked(tensors)["task"], "task")
        x = Network.load(task, parse_weights(container(tensors)), Work()).x
    at = [[round(float(x[t, d]) / UNIT) for d in range(2)] for t in range(5)]
    found = [logits(tensors, t, "gelu", True) for t in range(5)]
    answers = [row.index(max(row)) for row in found]
    features = [[256, 0], [0, 256], [1, 1]]
    regions = [[answers[t], 1, 0, at[t][0], at[t][0], 1, at[t][1], at[t][1]] for t in range(5)]
    codes = [[t, *at[t]] for t in range(5)]
    given = {"base": [0, 0], "features": features}

    def proven(regions=regions, codes=codes, labels=answers) -> int:
        made = verdict(tensors, regions, codes, labels=labels, **given)
        assert made.verdict == "accepted", made.reason
        return made.proven["certified"]

    assert proven() == 5
    large = [[row[0], 6, *row[2:]] for row in regions]  # which hold what is a few units off
    for strength in (at[0][0] - 1, at[0][0] + 1):
        assert proven(large, [[0, strength, at[0][1]], *codes[1:]]) == 4  # but for its box
    assert proven(codes=[codes[0], [], [], [], []]) == 1
    assert proven(codes=[[0, *at[1]], *codes[1:]]) == 4  # another input's strengths are outside the box
    wide = [answers[0], 1, 0, at[0][0] - 1, at[0][0] + 1, 1, at[0][1], at[0][1]]
    assert proven([wide, *regions[1:]], [[0, at[0][0] + 1, at[0][1]], *codes[1:]]) == 4  # off by a unit
    beside = [answers[0], 1, 0, at[0][0] + 5, at[0][0] + 5, 1, at[0][1], at[0][1]]
    assert proven([beside, *regions[1:]]) == 4  # by its own strengths, which are outside the box
    assert proven(labels=[(answers[0] + 1) % 3, *answers[1:]]) == 4
    point_only = [[row[0], 0, *row[2:]] for row in regions]
    assert proven(point_only) == 0  # the data are no multiples of the unit
    elsewhere = [[(row[0] + 1) % 3, *row[1:]] for row in regions]
    assert "region 0 is not proven" in verdict(tensors, elsewhere, codes, labels=answers, **given).reason
    assert verdict(tensors, regions, codes, 5, labels=answers, **given).proven["regions"] == 5
    fewer = verdict(tensors, regions, codes, 5, labels=[(answers[0] + 1) % 3, *answers[1:]], **given)
    assert "are proven" in fewer.reason


REFUSED = {
    "no such label": ([[3, 1]], "not a label"),
    "no such feature": ([[0, 1, 3, 0, 0]], "not a label"),
    "a feature from the end": ([[0, 1, -1, 0, 0]], "not a label"),
    "an end too few": ([[0, 1, 0, 0]], "not a label"),
    "nothing": ([[]], "not a label"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_regions_are_refused(name):
    regions, reason = REFUSED[name]
    found = verdict(random_problem(0), regions, [[]] * 5)
    assert found.verdict == "rejected" and reason in found.reason


def test_regions_of_negative_radius_are_refused():
    assert "not a label" in verdict(random_problem(0), [[0, -1]], [[]] * 5).reason
    assert "not a label" in verdict(random_problem(0), [[-1, 0]], [[]] * 5).reason


def test_empty_boxes_are_refused():
    assert "not a label" in verdict(random_problem(0), [[0, 1, 0, 1, 0]], [[]] * 5).reason


def test_length_of_a_region_is_counted():
    """By hand, D = 2, N = 6, C = 3, one feature; and three evaluations for each neuron."""
    with ctx.workprec(PRECISION):
        task = Fields(asked(random_problem(0))["task"], "task")
        network = Network.load(task, parse_weights(container(random_problem(0))), Work())
        features, work = [[arb(1), arb(1)]], Work()
        Region.read([0, 1, 0, -1, 1], features, 3, arb(UNIT)).margins(network, [arb(0)] * 2, features, work)
    box, centre, reach, remainders, scaled, linear, resting, margins, swings = (
        4,
        12,
        12,
        24,
        12,
        36,
        6,
        18,
        12,
    )
    assert (
        work.multiply_adds == box + centre + reach + remainders + scaled + linear + resting + margins + swings
    )
    assert work.evaluations == 3 * 6


def test_length_of_codes_is_counted():
    """D for each strength of a code, and D for the distance."""
    regions = [[0, 0, 0, 512, 512, 1, 0, 0]]
    named, unnamed = (
        corner([2.0, 0.0] * 3, regions, codes, [0] * 3).length
        for codes in ([[0, 512, 0], [0, 512, 0], []], [[], [], []])
    )
    assert named.multiply_adds - unnamed.multiply_adds == 2 * 2 * (2 + 1)
    assert named.reads - unnamed.reads == 2 * 3


CORNERS = {  # the larger coordinate is the answer; the neurons are far out, where GELU is straight
    "embed": ((2, 2), [1.0, 0.0, 0.0, 1.0]),
    "b_embed": ((2,), [0.0, 0.0]),
    "w_in": ((2, 2), [0.0] * 4),
    "b_in": ((2,), [0.0, 0.0]),
    "w_out": ((2, 2), [0.0] * 4),
    "b_out": ((2,), [0.0, 0.0]),
    "unembed": ((2, 2), [1.0, 0.0, 0.0, 1.0]),
    "b_unembed": ((2,), [0.0, 0.0]),
}


def corner(inputs: list[float], regions, codes, labels, claim=None, base=(0, 0), network=CORNERS, **task):
    """The verdict on regions of the network above; the claim is of no input unless one is given."""
    tensors = network | {"data.inputs": ((len(labels), 2), inputs)}
    axes = {"features": [[256, 0], [0, 256]], "bits": BITS, "base": base}
    advice = axes | {"regions": regions, "codes": codes}
    given = certificate(container(tensors), "T2", 0, len(labels), **advice)
    given["claim"] |= claim or {}
    return check(encoded(given), encoded(asked(tensors, labels, **task)), container(tensors))


def test_a_tie_makes_no_region():
    """On the diagonal both logits are equal; a unit beside it they are not. With neurons, their difference
    is computed as a ball around 0.
    """
    bent = CORNERS | {"w_in": CORNERS["embed"], "w_out": CORNERS["embed"]}
    for network in (CORNERS, bent):
        for beside, verdict_ in ((0, "rejected"), (1, "accepted"), (-1, "rejected")):
            region = [0, 0, 0, 256 + beside, 256 + beside, 1, 256, 256]
            found = corner([1.0, 1.0], [region], [[]], [0], network=network)
            assert found.verdict == verdict_, found.reason
            assert verdict_ == "accepted" or "region 0 is not proven to get the answer 0" in found.reason


def test_regions_are_around_the_base():
    """The same ball by another base and strength; and a base beside the input's is beside it."""
    for base, strength, certified in (
        ((0, 0), 512, 1),
        ((100, 0), 412, 1),
        ((100, 0), 512, 0),
        ((0, 9), 512, 0),
    ):
        found = corner([2.0, 0.0], [[0, 8, 0, strength, strength]], [[0, strength]], [0], base=base)
        assert found.proven["certified"] == certified


def test_the_population_is_that_of_all_inputs():
    """Right on 2 of 20: the 18 others are errors, of loss 1; the two are ahead by a quarter of the ramp."""
    labels, region = [0] * 2 + [1] * 18, [0, 0, 0, 256, 256]
    given = ([1.0, 0.0] * 20, [region], [[0, 256]] * 20, labels)
    task, total = {"risk": 50_000, "ramp": 4000}, 20

    def tail(accuracy: float) -> float:
        """Of 2 or more of 20."""
        wrong = 1 - accuracy
        return 1 - wrong**total - total * accuracy * wrong ** (total - 1)

    largest = max(a for a in range(100_000) if tail(a / 10**6) <= 0.05)
    right = {"certified": 2, "population_accuracy": largest, "population_ramp_loss": 10**6}
    found = corner(*given, right, **task)
    assert found.verdict == "accepted", found.reason
    assert found.proven["population_ramp_loss"] == 10**6  # of so few, nothing better is known
    for changed, reason in (
        ({"certified": 3}, "2 are proven"),
        ({"population_accuracy": largest + 1}, "2 of 20 do not prove it"),
        ({"population_accuracy": 790_000}, "2 of 20 do not prove it"),
        ({"population_ramp_loss": 10**6 - 1}, "1000000 is proven"),
    ):
        assert reason in corner(*given, right | changed, **task).reason


def test_the_populations_loss_is_that_of_the_regions():
    """All 500 are right, and each ahead by what its region is: three quarters of the ramp are lost.

    Where half of them have another label, half of them lose all.
    """
    given = ([1.0, 0.0] * 500, [[0, 0, 0, 256, 256]], [[0, 256]] * 500, [0] * 500)
    claim = {"certified": 500, "population_accuracy": 0, "population_ramp_loss": 10**6}
    for ramp, loss in ((4000, 0.75), (2000, 0.5), (1000, 0.0)):
        found = corner(*given, claim, risk=50_000, ramp=ramp).proven["population_ramp_loss"] / 10**6
        assert loss < found < loss + 0.2
    half = (*given[:-1], [0, 1] * 250)
    found = corner(*half, claim | {"certified": 250}, risk=50_000, ramp=1000).proven["population_ramp_loss"]
    assert 0.5 < found / 10**6 < 0.7


FAR = 2.0**-41  # its square is beside 1 below what 64 bits hold


def test_an_input_on_the_edge_of_a_region_is_not_inside():
    """Its distance is computed as a ball around the radius, which decides nothing."""
    labels, region = [0], [0, 256, 0, 512, 512]
    for moved, certified in ((0.0, 1), (FAR, 0)):
        inputs = [1.0, moved]  # from (2, 0), where the region is, 1 or a hair more
        found = corner(inputs, [region], [[0, 512]], labels)
        assert found.verdict == "accepted" and found.proven["certified"] == certified, moved


def test_bad_codes_are_refused():
    tensors = random_problem(0)
    found = logits_at(tensors, point([0, 0], (), (0.0, 0.0)), "gelu", True)
    label = found.index(max(found))
    regions = [[label, 0]]
    for codes, reason in (
        ([[]] * 4, "4 codes are given for 5"),
        ([[1], [], [], [], []], "names region 1; there are 1"),
        ([[-1], [], [], [], []], "names region -1"),
        ([[0, 5]] * 5, "1 strengths are given in a region of 0"),
    ):
        found = verdict(tensors, regions, codes, labels=[label] * 5)
        assert found.verdict == "rejected" and reason in found.reason, found.reason
    relu = asked(tensors, activation="relu")
    assert "expected gelu" in verdict(tensors, regions, [[]] * 5, spec=relu).reason
    assert set(ACTIVATIONS) >= set(KINDS)

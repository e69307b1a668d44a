"""T1, form "charts": margins against the exact network, charges as large as they must be, and no larger."""

from fractions import Fraction
from itertools import product

import pytest
from flint import arb, ctx
from reference.finite_data import finite_spec, logits, random_problem
from reference.product_space import ACTIVATIONS, container
from xtalk_check.activations import activation
from xtalk_check.charts import bend, from_charts
from xtalk_check.data import curvature
from xtalk_check.errors import Rejected
from xtalk_check.finite import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.work import PRECISION, Work

LABELS = [0, 1, 2, 1, 0]
UNIT = 1 << 20
ROUNDING = 1e-9  # of the plain loops in float64


def loaded(tensors, labels, **task) -> Network:
    asked = Fields(finite_spec(tensors, labels, **task)["task"], "task")
    return Network.load(asked, parse_weights(container(tensors)), Work())


def margins(tensors, labels, charts, codes, work=None, **task) -> list[list[arb]]:
    with ctx.workprec(PRECISION):
        advice = Fields({"bits": 20, "charts": charts, "codes": codes}, "advice")
        return from_charts(loaded(tensors, labels, **task), advice, work or Work())


def true_margins(tensors, labels, activation="gelu", residual=True) -> list[list[float]]:
    found = [logits(tensors, t, activation, residual) for t in range(len(labels))]
    return [[row[label] - other for other in row] for row, label in zip(found, labels, strict=True)]


def chart(label: int, radius: float, *point: float) -> list[int]:
    return [label, round(radius * UNIT), *(round(entry * UNIT) for entry in point)]


def one_neuron(x: float, b: float, out: float):
    """Logit 1 is `out` times a neuron's value, and the right answer is 0: the margin is that, negated."""
    numbers = {"embed": [1.0], "w_in": [1.0], "w_out": [out], "unembed": [0.0, 1.0], "data.inputs": [x]}
    tensors = {name: ((1, len(values)), values) for name, values in numbers.items()}
    biases = {"b_embed": [0.0], "b_in": [b], "b_out": [0.0], "b_unembed": [0.0, 0.0]}
    return tensors | {name: ((len(values),), values) for name, values in biases.items()}


def test_margins_of_charts_are_bounded_below():
    """Five inputs near three points; large balls prove little, and nothing false."""
    for seed, (kind, residual) in enumerate(product(("gelu", "gelu_tanh"), (True, False))):
        for radius in (1.0, 3.0, 30.0):
            tensors = random_problem(seed)
            task = {"activation": kind, "residual": residual}
            charts = [chart(label, radius, 0.3 - label, 0.25) for label in range(3)]
            bounds = margins(tensors, LABELS, charts, LABELS, **task)
            for bound, truth in zip(bounds, true_margins(tensors, LABELS, **task), strict=True):
                assert all(b.lower() <= m + ROUNDING for b, m in zip(bound, truth, strict=True))


def test_margins_at_a_charts_point_are_exact():
    """At the second input; the first's logits are where those of a point are counted from."""
    tensors = random_problem(1, T=2)
    width, embed = 3, tensors["embed"][1]
    z = tensors["data.inputs"][1][width:]
    x = [b + sum(z[i] * embed[2 * i + d] for i in range(width)) for d, b in enumerate(tensors["b_embed"][1])]
    for kind, residual in product(("gelu", "gelu_tanh"), (True, False)):
        task = {"activation": kind, "residual": residual}
        _, bound = margins(tensors, [2, 2], [chart(2, 1e-5, *x)], [0, 0], **task)
        _, truth = true_margins(tensors, [2, 2], **task)
        assert all(abs(float(b.mid()) - m) < 1e-4 for b, m in zip(bound, truth, strict=True))


def test_bends_hold_every_quotient_and_are_tight():
    """2 (phi(c + d) - phi(c) - phi'(c) d) / d^2 at many d, beside the ball that must hold them all."""
    with ctx.workprec(PRECISION):
        for name in ("gelu", "gelu_tanh"):
            network = loaded(one_neuron(0.0, 0.0, 1.0), [0], activation=name)
            for centre, reach in product((-1.5, 0.0, 0.75, 2.0), (0.5, 1.0, 3.0)):
                ball = bend(network, arb(centre), arb(reach), Work())
                slope = float(network.phi.slope(arb(centre)).mid())
                value = ACTIVATIONS[name]
                seen = [
                    2 * (value(centre + d) - value(centre) - slope * d) / (d * d)
                    for d in (reach * i / 50 for i in range(-50, 51) if i)
                ]
                assert float(ball.lower()) <= min(seen) + 1e-6 and max(seen) - 1e-6 <= float(ball.upper())
                assert float(ball.upper() - ball.lower()) < 1.25 * (max(seen) - min(seen)) + 0.1


def test_bends_are_charged_what_they_can_cost():
    """At 0 phi is all but a parabola, up to 1/32: what is charged against the tangent is really lost, and
    what is credited is really won.
    """
    for out, low, high in ((1.0, 0.99, 1.0), (-1.0, 1.0, 1.02)):
        tensors = one_neuron(1 / 32, 0.0, out)
        (bound,) = margins(tensors, [0], [chart(0, 1 / 32, 0.0)], [0], residual=False)
        (truth,) = true_margins(tensors, [0], residual=False)
        tangent = -out / 64
        assert bound[1].lower() <= truth[1] + 1e-12
        assert low <= (truth[1] - tangent) / (float(bound[1].lower()) - tangent) <= high


def test_bends_are_those_of_the_whole_ball():
    """A ball that reaches from 0, where phi bends most, to 3, where it is straight."""
    for x in (0.5, 1.5, 3.0):
        tensors = one_neuron(x, 0.0, -1.0)
        (bound,), (truth,) = margins(tensors, [0], [chart(0, 3.0, 0.0)], [0]), true_margins(tensors, [0])
        assert bound[1].lower() <= truth[1] + ROUNDING


def test_bends_are_those_that_a_neuron_reads():
    """A neuron that reads the ball four times over, or half of it, bends accordingly, at every point."""
    for scale, b, out in product((0.5, 4.0), (-4.0, -2.0, 0.0, 1.0, 3.0), (1.0, -1.0)):
        for step in range(-4, 5):
            tensors = one_neuron(step / 4, b, out) | {"w_in": ((1, 1), [scale])}
            (bound,) = margins(tensors, [0], [chart(0, 1.0, 0.0)], [0], residual=False)
            (truth,) = true_margins(tensors, [0], residual=False)
            assert bound[1].lower() <= truth[1] + 1e-12, (scale, b, out, step)


def test_pairs_of_coordinates_are_tabled():
    """Two coordinates whose neuron sees their sum: the pair is half of what a small step costs."""
    tensors = one_neuron(1.0, 0.0, 1.0) | {
        "data.inputs": ((1, 2), [1 / 64, 1 / 64]),
        "embed": ((2, 2), [1.0, 0.0, 0.0, 1.0]),
        "b_embed": ((2,), [0.0, 0.0]),
        "w_in": ((2, 1), [1.0, 1.0]),
        "w_out": ((1, 2), [1.0, 0.0]),
        "b_out": ((2,), [0.0, 0.0]),
        "unembed": ((2, 2), [0.0, 1.0, 0.0, 0.0]),
    }
    bound = float(margins(tensors, [0], [chart(0, 1 / 32, 0.0, 0.0)], [0], residual=False)[0][1].lower())
    truth = true_margins(tensors, [0], residual=False)[0][1]
    tangent = -1 / 64
    assert 0.98 < (truth - tangent) / (bound - tangent) <= 1


def test_inputs_outside_a_chart_are_not_certified():
    tensors, inside = one_neuron(0.5, 0.0, 1.0), [chart(0, 0.5, 0.0)]
    truth = true_margins(tensors, [0], residual=False)[0][1]
    assert truth - 0.1 < float(margins(tensors, [0], inside, [0], residual=False)[0][1].lower()) <= truth
    for charts, labels in (([[0, UNIT // 2 - 1, 0]], [0]), ([chart(1, 0.5, 0.0)], [0]), (inside, [1])):
        (bound,) = margins(tensors, labels, charts, [0], residual=False)
        assert all(entry < 0 for entry in bound)


def test_an_input_on_the_edge_of_a_chart_is_not_inside():
    """Its distance is computed as a ball around the radius, which decides nothing."""
    tensors = random_problem(0, T=1, I=2) | {
        "embed": ((2, 2), [1.0, 0.0, 0.0, 1.0]),
        "b_embed": ((2,), [0.0, 0.0]),
    }
    for moved, inside in ((0.0, True), (2.0**-41, False)):
        tensors["data.inputs"] = ((1, 2), [1.0, moved])
        (bound,) = margins(tensors, [0], [chart(0, 1.0, 0.0, 0.0)], [0])
        assert all(entry > arb("-inf") for entry in bound) == inside


REFUSED = {
    "a label too large": ([[3, 1, 0, 0]], [0] * 5, "not a label"),
    "a negative label": ([[-1, 1, 0, 0]], [0] * 5, "not a label"),
    "a negative radius": ([[0, -1, 0, 0]], [0] * 5, "not a label"),
    "a coordinate too few": ([[0, 1, 0]], [0] * 5, "3 entries; expected 4"),
    "no such chart": ([[0, 1, 0, 0]], [1] * 5, "from 0 to 0"),
    "a chart from the end": ([[0, 1, 0, 0]], [-1] * 5, "from 0 to 0"),
    "no charts": ([], [0] * 5, "from 0 to -1"),
    "a code too few": ([[0, 1, 0, 0]], [0] * 4, "4 entries; expected 5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_charts_are_refused(name):
    charts, codes, reason = REFUSED[name]
    with pytest.raises(Rejected, match=reason):
        margins(random_problem(0), LABELS, charts, codes)


def test_bad_labels_of_charts_are_refused():
    for label in (-1, 3):
        with pytest.raises(Rejected, match="not a label"):
            margins(random_problem(0), LABELS, [[label, 1, 0, 0]], [0] * 5)


def test_a_single_class_is_refused():
    with pytest.raises(Rejected, match="single class"):
        loaded(random_problem(0, C=1), [0] * 5)


def test_kinks_are_refused():
    for ball in (arb(0, 1), arb(1, 2)):
        with pytest.raises(Rejected, match="without kinks"):
            curvature(activation("relu"), ball)


def test_negative_radii_are_refused():
    """Its square would be that of a ball."""
    with pytest.raises(Rejected, match="not a label"):
        margins(random_problem(0), LABELS, [[0, -1, 0, 0]], [0] * 5)


def test_length_of_charts_is_counted():
    """As the docstring says; and no input costs more for more neurons."""

    def length(neurons: int, copies: int) -> Work:
        work = Work()
        tensors = random_problem(1, T=copies, N=neurons)
        margins(tensors, [0] * copies, [chart(0, 1.0, 0.0, 0.0)], [0] * copies, work)
        return work

    D, C, P = 2, 3, 3
    for neurons in (8, 16):
        once, each = length(neurons, 3), length(neurons, 6).multiply_adds - length(neurons, 3).multiply_adds
        assert each == 3 * ((P + D) * C + C - 1)
        assert once.evaluations == 18 * neurons
        table = neurons * (D * (C + 3) + (C - 1) * (P + 1) + C) + D * C
        assert once.multiply_adds - each == P * neurons + table
    assert Fraction(length(8, 6).evaluations, length(8, 3).evaluations) == 1

"""T1 language: losses against the exact tail, each charge as large as it must be, and claims."""

import random
from copy import deepcopy
from itertools import product
from math import ceil, cos, exp, log, sin, sqrt

import pytest
from flint import arb, ctx
from reference.language_tail import (
    EPSILON,
    explained_tail,
    language_certificate,
    language_spec,
    loss,
    mlp_input,
    random_features,
    random_tail,
    stream,
    task_of,
)
from reference.product_space import container, encoded
from xtalk_check import check
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.t1_language import FORMS, Norm, Tail, cross_entropy
from xtalk_check.work import PRECISION, Work

ROUNDING = 1e-9  # of the plain loops in float64
TARGETS = [0, 5, 2, 3, 5]
STEEP = 1.4142  # where the slope of GELU is largest
TINY = 1 / 64
ACROSS = [a / sqrt(3) for a in (1.0, -2.0, 1.0)]  # to (1, 0, -1), and as long


def tail_of(tensors, targets=TARGETS, **task) -> Tail:
    return Tail.load(task_of(tensors, targets, **task), parse_weights(container(tensors)), Work())


def streams(tensors, advice: dict, targets=TARGETS, **task) -> list[tuple[list[float], float]]:
    """What the form says z is, and up to which error."""
    with ctx.workprec(PRECISION):
        form = FORMS[advice["form"]]
        fields = Fields({k: v for k, v in advice.items() if k != "form"}, "advice")
        found = list(form(tail_of(tensors, targets, **task), fields, Work()))
        return [([float(a.mid()) for a in z], float(error.upper())) for z, error in found]


def losses(tensors, advice: dict, targets=TARGETS, **task) -> list[arb]:
    with ctx.workprec(PRECISION):
        tail = tail_of(tensors, targets, **task)
        fields = Fields({k: v for k, v in advice.items() if k != "form"}, "advice")
        return list(tail.losses(FORMS[advice["form"]](tail, fields, Work()), Work()))


def verdict(tensors, micronats, targets=TARGETS, tokens=None, spec=None, **advice):
    given = language_certificate(tensors, micronats, len(targets) if tokens is None else tokens, **advice)
    return check(encoded(given), encoded(spec or language_spec(tensors, targets)), container(tensors))


def far(a: list[float], b: list[float]) -> float:
    return sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def test_exact_losses_are_the_tails():
    for seed, activation in enumerate(("gelu", "gelu_tanh")):
        tensors = random_tail(seed)
        bounds = losses(tensors, {"form": "exact"}, activation=activation)
        truth = [loss(tensors, t, target, activation) for t, target in enumerate(TARGETS)]
        assert all(abs(float(b.mid()) - m) < ROUNDING for b, m in zip(bounds, truth, strict=True))


def test_losses_in_chunks_are_those_of_each_token():
    """More tokens than are held at a time, and not a multiple of them."""
    tensors, targets = random_tail(0, T=600), [t % 6 for t in range(600)]
    bounds = losses(tensors, {"form": "exact"}, targets)
    truth = [loss(tensors, t, target) for t, target in enumerate(targets)]
    assert all(abs(float(b.mid()) - m) < ROUNDING for b, m in zip(bounds, truth, strict=True))


def test_losses_and_streams_are_bounded_whatever_the_advice():
    for seed in range(30):
        tensors, advice = random_tail(seed), random_features(seed)
        for t, (z, error) in enumerate(streams(tensors, advice)):
            assert far(z, stream(tensors, t)) <= error + ROUNDING
        for t, bound in enumerate(losses(tensors, advice)):
            assert float(bound.upper()) >= loss(tensors, t, TARGETS[t]) - ROUNDING


def with_knots_at_readings(tensors, advice: dict) -> dict:
    """The same features in finer units, with knots beside every reading."""
    advice = advice | {"bits": 40, "gains": [g << 32 for g in advice["gains"]], "knots": []}
    advice["directions"] = [[r << 32 for r in row] for row in advice["directions"]]
    for row in advice["directions"]:
        readings = [
            sum(r / 2**40 * a for r, a in zip(row, mlp_input(tensors, t), strict=True)) for t in range(5)
        ]
        near = {int(s * 2**40) + beside for s in readings for beside in (-4096, 4096)}
        advice["knots"].append(sorted(near))
    return advice


def test_features_that_explain_all_are_exact():
    """No crosstalk, and knots next to every reading: next to nothing is charged, and nothing lost."""
    for seed in range(4):
        tensors, advice = explained_tail(seed)
        advice = with_knots_at_readings(tensors, advice)
        for t, (z, error) in enumerate(streams(tensors, advice)):
            assert error < 1e-6 and far(z, stream(tensors, t)) <= error + ROUNDING
        for t, bound in enumerate(losses(tensors, advice)):
            assert abs(float(bound.mid()) - loss(tensors, t, TARGETS[t])) < 1e-5


def one_neuron(read: list[float], b: float, out: list[float]):
    """One token whose n is (1, -1) but for epsilon, and one neuron."""
    return {
        "data.resid_mid": ((1, 2), [64.0, -64.0]),
        "norm_in.weight": ((2,), [1.0, 1.0]),
        "norm_in.bias": ((2,), [0.0, 0.0]),
        "w_in": ((2, 1), read),
        "b_in": ((1,), [b]),
        "w_out": ((1, 2), out),
        "b_out": ((2,), [0.0, 0.0]),
        "norm_out.weight": ((2,), [1.0, 1.0]),
        "norm_out.bias": ((2,), [0.0, 0.0]),
        "unembed": ((2, 2), [1.0, -1.0, -1.0, 1.0]),
    }


def one_feature(direction: list[float], gain: float, knots: list[float], bits: int = 36) -> dict:
    unit = 1 << bits
    return {
        "form": "features",
        "bits": bits,
        "directions": [[int(r * unit) for r in direction]],
        "features": [0],
        "gains": [int(gain * unit)],
        "knots": [[int(s * unit) for s in knots]],
    }


def moved_over_charged(tensors, advice: dict) -> float:
    """How much of what is charged z has really moved."""
    ((z, error),) = streams(tensors, advice, [0])
    return far(z, stream(tensors, 0)) / error


def test_crosstalk_is_charged_what_it_can_cost():
    """The neuron reads nothing of its feature, and of the rest what it can, where its slope is largest."""
    tensors = one_neuron([TINY, -TINY], 1.40625, [3.0, 4.0])
    ratio = moved_over_charged(tensors, one_feature([1.0, 0.0], 0.0, [0.0, 2.0]))
    assert 0.99 < ratio <= 1


def test_crosstalk_of_several_neurons_adds_up():
    tensors = one_neuron([TINY, -TINY], 1.40625, [3.0, 4.0])
    tensors |= {
        "w_in": ((2, 2), [TINY, TINY / 2, -TINY, -TINY / 2]),
        "b_in": ((2,), [1.40625, 1.40625]),
        "w_out": ((2, 2), [3.0, 4.0, 6.0, 8.0]),
    }
    advice = one_feature([1.0, 0.0], 0.0, [0.0, 2.0]) | {"features": [0, 0], "gains": [0, 0]}
    assert 0.99 < moved_over_charged(tensors, advice) <= 1


def test_knots_are_charged_what_they_can_cost():
    """Half-way between two knots around 0, where GELU bends most; n_1 is 1."""
    tensors = one_neuron([0.25, 0.0], -0.25, [3.0, 4.0])
    advice = one_feature([0.25, 0.0], 1.0, [0.25 - TINY, 0.25 + TINY])
    assert 0.99 < moved_over_charged(tensors, advice) <= 1


def test_knots_are_charged_by_gain_and_neuron():
    """Two neurons of one feature, with gains 2 and -3: each bends with the square of its gain."""
    tensors = one_neuron([0.5, 0.0], -0.5, [3.0, 4.0])
    tensors |= {
        "w_in": ((2, 2), [0.5, -0.75, 0.0, 0.0]),
        "b_in": ((2,), [-0.5, 0.75]),
        "w_out": ((2, 2), [3.0, 4.0, 6.0, 8.0]),
    }
    advice = one_feature([0.25, 0.0], 1.0, [0.25 - TINY / 4, 0.25 + TINY / 4])
    advice |= {"features": [0, 0], "gains": [2 << 36, -(3 << 36)]}
    assert 0.99 < moved_over_charged(tensors, advice) <= 1


def test_bends_are_those_between_knots():
    """All that bends lies at one of the knots, far from the reading: the chord is off all the same."""
    for b, knots in ((3.75, [-4.0, 1.0]), (-4.0, [-0.5, 4.25])):
        tensors = one_neuron([0.25, 0.0], b, [3.0, 4.0])
        for others in (knots, [-40.0, -20.0, *knots, 60.0]):
            assert 0.01 < moved_over_charged(tensors, one_feature([0.25, 0.0], 1.0, others)) <= 1


def test_bends_may_be_negative():
    """Beyond sqrt 2 GELU is concave, most at 2."""
    tensors = one_neuron([0.25, 0.0], 1.75, [3.0, 4.0])
    advice = one_feature([0.25, 0.0], 1.0, [0.25 - TINY, 0.25 + TINY])
    assert 0.9 < moved_over_charged(tensors, advice) <= 1


def test_chords_lean_to_the_nearer_knot():
    """A quarter of the way from one knot to the next."""
    tensors = one_neuron([0.25, 0.0], -0.25, [3.0, 4.0])
    for knots in ([0.25 - TINY / 4, 0.25 + 3 * TINY / 4], [0.25 - 3 * TINY / 4, 0.25 + TINY / 4]):
        assert 0.99 < moved_over_charged(tensors, one_feature([0.25, 0.0], 1.0, knots)) <= 1


def test_errors_reach_the_loss():
    """Crosstalk that is charged raises the bound above the loss of the stream without it."""
    tensors = one_neuron([TINY, -TINY], 1.40625, [3.0, -4.0])
    without = tensors | {"w_in": ((2, 1), [0.0, 0.0])}
    advice = one_feature([1.0, 0.0], 0.0, [0.0, 2.0])
    for target in (0, 1):
        (bound,) = losses(tensors, advice, [target])
        assert float(bound.lower()) > max(loss(tensors, 0, target), loss(without, 0, target)) + 1e-6


def test_knots_increase():
    twice = random_features(0) | {"knots": [[-(1 << 20), 0, 0, 1 << 20]] * 4}
    assert "do not increase" in verdict(random_tail(0), 1 << 40, **twice).reason


def test_readings_lie_between_knots():
    for knots in ([1 << 19, 1 << 20], [-(1 << 20), -(1 << 19)], [0], []):
        outside = random_features(0) | {"knots": [knots] * 4}
        assert "outside its knots" in verdict(random_tail(0), 1 << 40, **outside).reason


def test_readings_are_rounded_at_the_cost_of_the_steepest_slope():
    """The reading is all but 63/64, and the table is asked at 62/64, one of its knots."""
    tensors = one_neuron([63 / 64, 0.0], STEEP - 125 / 128, [3.0, 4.0])
    tensors["b_in"] = ((1,), [0.4375])
    advice = one_feature([63 / 64, 0.0], 1.0, [0.5, 62 / 64, 1.0], bits=6)
    assert 0.99 < moved_over_charged(tensors, advice) <= 1


def test_rounding_is_charged_by_gain_and_neuron():
    tensors = one_neuron([63 / 64, 0.0], 0.0, [3.0, 4.0])
    tensors |= {
        "w_in": ((2, 2), [63 / 64, -63 / 128, 0.0, 0.0]),
        "b_in": ((2,), [0.4375, 1.90625]),
        "w_out": ((2, 2), [3.0, 4.0, -6.0, -8.0]),
    }
    advice = one_feature([63 / 64, 0.0], 1.0, [0.5, 62 / 64, 1.0], bits=6)
    advice |= {"features": [0, 0], "gains": [64, -32]}
    assert 0.99 < moved_over_charged(tensors, advice) <= 1


def test_bounds_on_norms_are_those_of_the_lemma():
    """Small errors, errors that take most of the scale away, and errors beyond it, which epsilon stops."""
    for size in (2, 5):
        unit = Norm([arb(1)] * size, [arb(0)] * size, arb(EPSILON) / 1_000_000)
        for scale, error in product((0.02, 0.5, 3.0), (0.001, 0.4, 2.0, 9.0)):
            with ctx.workprec(PRECISION):
                found = float(unit.moved(arb(scale), arb(error)))
            least = max(scale - error / sqrt(size), sqrt(EPSILON / 1e6))
            assert found == pytest.approx(error / sqrt(scale * least), rel=1e-12)


def test_a_norm_moves_no_further_than_it_can():
    """Across the vector it moves as far as is said; wherever it goes, no further."""
    rng = random.Random(0)
    unit = Norm([arb(1)] * 3, [arb(0)] * 3, arb(EPSILON) / 1_000_000)

    def unit_of(row: list[float]) -> list[float]:
        mean = sum(row) / 3
        scale = sqrt(sum((a - mean) ** 2 for a in row) / 3 + EPSILON / 1e6)
        return [(a - mean) / scale for a in row]

    def moved(z: list[float], step: list[float]) -> float:
        with ctx.workprec(PRECISION):
            scale = unit.scale([arb(a) for a in z], Work())[1]
            bound = float(unit.moved(scale, arb(far(step, [0.0] * 3))).upper())
        return far(unit_of(z), unit_of([a + b for a, b in zip(z, step, strict=True)])) / bound

    assert 0.99 < moved([1.0, 0.0, -1.0], [0.001, -0.002, 0.001]) <= 1
    assert 0.99 < moved([0.0003, 0.0, -0.0003], [0.00001, -0.00002, 0.00001]) <= 1
    ratios = [
        moved([rng.gauss(0, size) for _ in range(3)], [rng.gauss(0, 1) for _ in range(3)])
        for size in (0.01, 0.3, 1, 3)
        for _ in range(300)
    ]
    assert max(ratios) <= 1 + ROUNDING
    # Turned by 1.2 in the shortest way there is, which ends nearer to the centre: more than |step| / scale.
    sine, cosine = sin(1.2), cos(1.2)
    end = [cosine * (cosine * a + sine * b) for a, b in zip([1.0, 0.0, -1.0], ACROSS, strict=True)]
    step = [b - a for a, b in zip([1.0, 0.0, -1.0], end, strict=True)]
    assert far(unit_of(end), unit_of([1.0, 0.0, -1.0])) > 1.1 * far(step, [0.0] * 3) / sqrt(2 / 3)
    assert moved([1.0, 0.0, -1.0], step) <= 1


def test_logits_reach_as_far_as_the_unit_moves_them():
    """Whatever moves the norm's unit by 1 moves two logits apart by no more than both reaches."""
    rng = random.Random(1)
    for seed in range(10):
        tensors = random_tail(seed)
        with ctx.workprec(PRECISION):
            reach = [float(r.upper()) for r in tail_of(tensors).reach(Work())]
        weight, unembed = tensors["norm_out.weight"][1], tensors["unembed"][1]
        for _ in range(100):
            move = [rng.gauss(0, 1) for _ in range(3)]
            move = [a - sum(move) / 3 for a in move]
            size = far(move, [0.0] * 3)
            moved = [sum(move[d] / size * weight[d] * unembed[6 * d + j] for d in range(3)) for j in range(6)]
            apart = [(moved[j] - moved[i], reach[i] + reach[j]) for i in range(6) for j in range(6)]
            assert all(distance <= most + ROUNDING for distance, most in apart)


def test_opposite_logits_reach_no_further_than_they_must():
    """Two tokens of opposite directions, each a target once: they move apart by both reaches."""
    tensors = one_neuron([0.0, 0.0], 0.0, [0.0, 0.0])
    tensors["data.resid_mid"] = ((2, 2), [1.0, -1.0, 2.0, -1.0])
    with ctx.workprec(PRECISION):
        reach = [float(r.mid()) for r in tail_of(tensors, [0, 1]).reach(Work())]
    assert abs(sum(reach) - 2 * sqrt(2)) < ROUNDING


def test_cross_entropies_are_as_large_as_moved_logits_make_them():
    rng = random.Random(2)
    for target in range(4):
        logits, reach = [rng.gauss(0, 1) for _ in range(4)], [rng.random() for _ in range(4)]
        with ctx.workprec(PRECISION):
            balls = [[arb(a) for a in row] for row in (logits, reach)]
            bound = float(cross_entropy(*balls[:1], target, balls[1], arb(0.25), Work()).mid())
        worst = [a + 0.25 * r for a, r in zip(logits, reach, strict=True)]
        worst[target] = logits[target] - 0.25 * reach[target]
        others = [a for j, a in enumerate(worst) if j != target]
        assert abs(bound - log(1 + sum(exp(a - worst[target]) for a in others))) < ROUNDING


def test_claims_and_data_are_those_of_the_specification_of_the_tail():
    tensors = random_tail(3)
    proven = ceil(1e6 * sum(loss(tensors, t, target) for t, target in enumerate(TARGETS)) / 5)
    accepted = verdict(tensors, proven, form="exact")
    assert accepted.verdict == "accepted" and accepted.proven == {"micronats": proven, "tokens": 5}
    assert f"{proven} are proven" in verdict(tensors, proven - 1, form="exact").reason
    assert verdict(tensors, proven + 5, form="exact").verdict == "accepted"
    assert "another number of tokens" in verdict(tensors, proven, tokens=4, form="exact").reason
    other = language_spec(random_tail(4), TARGETS)
    assert "about other data" in verdict(tensors, proven, spec=other, form="exact").reason
    for target in (-1, 6):
        beyond = language_spec(tensors, [target, *TARGETS[1:]])
        assert "from 0 to 5" in verdict(tensors, proven, spec=beyond, form="exact").reason
    relu = language_spec(tensors, TARGETS, activation="relu")
    assert "expected gelu" in verdict(tensors, proven, spec=relu, form="exact").reason
    assert "4 entries; expected 5" in verdict(tensors, proven, TARGETS[:4], 4, form="exact").reason


REFUSED = {
    "another width": ({"directions": [[1, 2]] * 4}, "2 entries; expected 3"),
    "no directions": ({"directions": [], "knots": []}, "0 directions"),
    "knots of one feature too few": ({"knots": [[-(1 << 20), 1 << 20]] * 3}, "4 directions and 3 rows"),
    "no such feature": ({"features": [4] * 7}, "from 0 to 3"),
    "a feature from the end": ({"features": [-1] * 7}, "from 0 to 3"),
    "a neuron without a feature": ({"features": [0] * 6}, "6 entries; expected 7"),
    "a gain too few": ({"gains": [1] * 6}, "6 entries; expected 7"),
    "knots that fall": ({"knots": [[1 << 20, -(1 << 20)]] * 4}, "do not increase"),
    "one knot": ({"knots": [[0]] * 4}, "outside its knots"),
    "no knots": ({"knots": [[]] * 4}, "outside its knots"),
    "bits": ({"bits": 41}, "from 0 to 40"),
    "an error as advice": ({"errors": [0] * 5}, "unknown key 'errors'"),
    "another form": ({"form": "trust"}, "expected exact or features"),
    "a gain that is a float": ({"gains": [0.5] * 7}, "numbers are integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_features_are_refused(name):
    changed, reason = REFUSED[name]
    refused = verdict(random_tail(0), 1 << 40, **deepcopy(random_features(0)) | changed)
    assert refused.verdict == "rejected"
    assert reason in refused.reason


def test_features_without_neurons_need_no_knots():
    advice = random_features(0)
    idle = advice | {"directions": [*advice["directions"], [1, 2, 3]], "knots": [*advice["knots"], []]}
    assert verdict(random_tail(0), 1 << 40, **idle).verdict == "accepted"


def test_length_of_a_table_is_that_of_the_formulas():
    """One token: each feature in use has one reading, between two knots."""
    D, N, V, F = 3, 7, 6, 4
    tensors, advice = random_tail(2, T=1), random_features(2)
    found = verdict(tensors, 1 << 40, [0], **advice).length
    shared = (3 * D + 3 * D + D * V + V) + 2 * V * D
    neurons = [advice["features"].count(i) for i in range(F)]
    tables = sum(M + 1 + 2 + 2 * D + 2 * (M + M * D) + 2 * M + 2 * M for M in neurons if M)
    assert found.multiply_adds == shared + N * (3 * D + 1) + D * F + D + tables
    assert found.evaluations == 2 + V + 3 * N


def test_length_of_a_tail_is_that_of_the_formulas():
    T, D, N, V, F = 5, 3, 7, 6, 4
    tensors, advice = random_tail(2), random_features(2)
    shared = T * (3 * D + 3 * D + D * V + V) + 2 * V * D
    exact = verdict(tensors, 1 << 40, form="exact").length
    assert exact.multiply_adds == shared + T * 2 * D * N
    assert exact.evaluations == T * (2 + N + V) and exact.reads == 2

    def length(copies: int):
        values = tensors["data.resid_mid"][1]
        many = tensors | {"data.resid_mid": ((copies * T, D), values * copies)}
        return verdict(many, 1 << 40, TARGETS * copies, **advice).length

    used = len(set(advice["features"]))
    once, twice = length(1), length(2)
    assert twice.multiply_adds - once.multiply_adds == T * (7 * D + D * V + V + F * D + used * (2 * D + 3))
    assert twice.evaluations - once.evaluations == T * (2 + V)
    assert once.reads == 2 + 1 + F * D + 2 * N + sum(map(len, advice["knots"]))

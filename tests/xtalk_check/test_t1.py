"""T1: margins against the exact network, each charge as large as it must be and no larger, and claims."""

from itertools import product

import pytest
from flint import arb, ctx
from reference.finite_data import (
    finite_certificate,
    finite_spec,
    logits,
    random_advice,
    random_problem,
)
from reference.product_space import container, encoded
from xtalk_check import check
from xtalk_check.finite import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.t1 import FORMS
from xtalk_check.work import PRECISION, Work

ROUNDING = 1e-9  # of the plain loops in float64
SWITCH = ((1, 2), [0.0, 1.0])  # unembeds a width of 1 into two logits whose difference it is


def margins(tensors, labels, advice: dict, **task) -> list[list[arb]]:
    with ctx.workprec(PRECISION):
        asked = Fields(finite_spec(tensors, labels, **task)["task"], "task")
        network = Network.load(asked, parse_weights(container(tensors)), Work())
        form = FORMS[advice["form"]]
        return form(network, Fields({k: v for k, v in advice.items() if k != "form"}, "advice"), Work())


def true_margins(tensors, labels, activation="gelu", residual=True) -> list[list[float]]:
    found = [logits(tensors, t, activation, residual) for t in range(len(labels))]
    return [[row[label] - other for other in row] for row, label in zip(found, labels, strict=True)]


def verdict(tensors, labels, certified=0, total=None, spec=None, **advice):
    given = finite_certificate(tensors, certified, len(labels) if total is None else total, **advice)
    return check(encoded(given), encoded(spec or finite_spec(tensors, labels)), container(tensors))


def one_neuron(x: float, b: float, out: float, label: int = 0):
    """A neuron that reads x, and is worth `out` times its value to logit 1; the right answer is `label`."""
    tensors = {
        "data.inputs": ((1, 1), [x]),
        "embed": ((1, 1), [1.0]),
        "b_embed": ((1,), [0.0]),
        "w_in": ((1, 1), [1.0]),
        "b_in": ((1,), [b]),
        "w_out": ((1, 1), [out]),
        "b_out": ((1,), [0.0]),
        "unembed": SWITCH,
        "b_unembed": ((2,), [0.0, 0.0]),
    }
    return tensors, [label]


def test_exact_margins_are_the_networks():
    for seed, (activation, residual) in enumerate(product(("gelu", "gelu_tanh"), (True, False))):
        tensors, labels = random_problem(seed), [0, 1, 2, 1, 0]
        task = {"activation": activation, "residual": residual}
        bounds = margins(tensors, labels, {"form": "exact"}, **task)
        for bound, truth in zip(bounds, true_margins(tensors, labels, **task), strict=True):
            assert all(abs(float(b.mid()) - m) < ROUNDING for b, m in zip(bound, truth, strict=True))


def test_margins_are_bounded_below_whatever_the_advice():
    for seed in range(40):
        tensors, labels = random_problem(seed), [0, 1, 2, 1, 0]
        advice = random_advice(seed)
        tables = advice | {"form": "tables", "steps": [1, 7, 64, 300]}
        for bound, truth in zip(margins(tensors, labels, tables), true_margins(tensors, labels), strict=True):
            assert all(b.lower() <= m + ROUNDING for b, m in zip(bound, truth, strict=True))


def test_full_codes_of_one_feature_are_exact():
    """No pair, no residual, a table entry at the very strength: nothing is charged."""
    tensors, labels = one_neuron(0.75, 0.5, 2.0)
    advice = {"bits": 8, "base": [64], "features": [[128]], "codes": [[0, 256]]}
    (bound,) = margins(tensors, labels, advice | {"form": "tables", "steps": [256]})
    (truth,) = true_margins(tensors, labels)
    assert all(abs(float(b.mid()) - m) < ROUNDING for b, m in zip(bound, truth, strict=True))


def lost_over_charged(tensors, labels, advice: dict, explained: float) -> float:
    """How much of what is charged is really lost; `explained` is the margin without any charge."""
    (bound,) = margins(tensors, labels, advice)
    (truth,) = true_margins(tensors, labels)
    return (explained - truth[1]) / (explained - float(bound[1].lower()))


def gelu(h: float) -> float:
    return -true_margins(*one_neuron(h, 0.0, 1.0), residual=False)[0][1]


def explained_margin(x: float, effects: float) -> float:
    return -x - effects  # logit 1 gets x directly


TINY = 1 / 64
CODE = {"bits": 20, "base": [0], "features": [[1 << 20], [1 << 20]]}
UNIT = 1 << 20


def test_pairs_are_charged_what_they_can_cost():
    """At 0 the curvature is at its largest, so two small features lose all that is charged but a little."""
    tensors, labels = one_neuron(2 * TINY, 0.0, 1.0)
    step = int(TINY * UNIT)
    advice = CODE | {"form": "tables", "steps": [step, step], "codes": [[0, step, 1, step]]}
    ratio = lost_over_charged(tensors, labels, advice, explained_margin(2 * TINY, 2 * gelu(TINY)))
    assert 0.99 < ratio <= 1


def test_residuals_are_charged_what_they_can_cost():
    tensors, labels = one_neuron(TINY, 0.0, 1.0)
    advice = CODE | {"form": "tables", "steps": [1, 1], "codes": [[]]}
    ratio = lost_over_charged(tensors, labels, advice, explained_margin(TINY, TINY / 2))
    assert 0.99 < ratio <= 1


def test_residuals_beside_features_are_charged_what_they_can_cost():
    """A feature 32 times the residual, so that the residual's own square hardly counts."""
    tensors, labels = one_neuron(33 * TINY / 32, 0.0, 1.0)
    step, rest = int(TINY * UNIT), TINY / 32
    advice = CODE | {"form": "tables", "steps": [step, 1], "codes": [[0, step]]}
    explained = explained_margin(TINY + rest, gelu(TINY) + rest / 2)
    assert 0.99 < lost_over_charged(tensors, labels, advice, explained) <= 1


def test_interpolation_is_charged_what_it_can_cost():
    """Between table entries the chord lies above a convex effect, which a negative weight turns round."""
    tensors, labels = one_neuron(TINY, 0.0, -1.0)
    advice = CODE | {"form": "tables", "steps": [int(2 * TINY * UNIT), 1], "codes": [[0, int(TINY * UNIT)]]}
    ratio = lost_over_charged(tensors, labels, advice, explained_margin(TINY, -gelu(2 * TINY) / 2))
    assert 0.99 < ratio <= 1


def test_many_pairs_and_neurons_are_charged_together():
    """Three features, two neurons of different weight and sign: every pair counts, in each neuron."""
    tensors, labels = one_neuron(3 * TINY, 0.0, 1.0)
    tensors |= {
        "w_in": ((1, 2), [1.0, 0.5]),
        "b_in": ((2,), [0.0, 0.0]),
        "w_out": ((2, 1), [1.0, 4.0]),
    }
    step = int(TINY * UNIT)
    code = CODE | {"features": [[UNIT]] * 3, "codes": [[0, step, 1, step, 2, step]]}
    explained = explained_margin(3 * TINY, 3 * (gelu(TINY) + 4 * gelu(TINY / 2)))
    ratio = lost_over_charged(tensors, labels, code | {"form": "tables", "steps": [step] * 3}, explained)
    assert 0.99 < ratio <= 1


def test_charges_are_those_of_any_size_and_sign():
    """As above, where the neuron reads an eighth of its input or eight times it; strengths are negative."""
    for scale, sign, out in product((1 / 8, 8.0), (1, -1), (1.0, 4.0)):
        h, t = sign * TINY, sign * TINY / scale  # what the neuron sees of a feature, and its strength
        step, strength = int(TINY / scale * UNIT), int(t * UNIT)

        def ratio(x: float, out: float, explained: float, advice: dict, scale=scale) -> float:
            tensors, labels = one_neuron(x, 0.0, out)
            tensors |= {"w_in": ((1, 1), [scale])}
            return lost_over_charged(tensors, labels, CODE | advice, -x - out * explained)

        tables, rest = {"form": "tables", "steps": [step, step]}, t / 32
        pair = tables | {"codes": [[0, strength, 1, strength]]}
        assert 0.99 < ratio(2 * t, out, 2 * gelu(h), pair) <= 1
        beside = gelu(h) + rest * scale / 2
        assert 0.99 < ratio(t + rest, out, beside, tables | {"codes": [[0, strength]]}) <= 1
        assert 0.99 < ratio(t, out, h / 2, tables | {"codes": [[]]}) <= 1
        quarter = {"form": "tables", "steps": [4 * step, 1], "codes": [[0, strength]]}
        assert 0.99 < ratio(t, -out, gelu(4 * h) / 4, quarter) <= 1


def test_the_label_must_be_strictly_ahead():
    tensors, labels = one_neuron(0.0, 0.0, 1.0)
    assert verdict(tensors, labels, form="exact").proven == {"certified": 0, "total": 1}
    tensors["b_unembed"] = ((2,), [2.0**-40, 0.0])
    assert verdict(tensors, labels, form="exact").proven["certified"] == 1


def test_claims_and_data_are_those_of_the_specification():
    tensors, labels = random_problem(3), [0, 1, 2, 1, 0]
    right = sum(
        all(m > 0 for wrong, m in enumerate(row) if wrong != label)
        for row, label in zip(true_margins(tensors, labels), labels, strict=True)
    )
    assert verdict(tensors, labels, right, form="exact").verdict == "accepted"
    assert "are proven" in verdict(tensors, labels, right + 1, form="exact").reason
    assert "about 4 inputs; the task has 5" in verdict(tensors, labels, right, 4, form="exact").reason
    other = finite_spec(random_problem(4), labels)
    assert "about other data" in verdict(tensors, labels, right, spec=other, form="exact").reason
    fewer = finite_spec(tensors, labels[:4])
    assert "4 entries; expected 5" in verdict(tensors, labels, right, spec=fewer, form="exact").reason
    for label in (3, -1):
        beyond = finite_spec(tensors, [*labels[:4], label])
        assert "from 0 to 2" in verdict(tensors, labels, right, spec=beyond, form="exact").reason
    relu = finite_spec(tensors, labels, activation="relu")
    assert "expected gelu" in verdict(tensors, labels, right, spec=relu, form="exact").reason


def test_pre_activations_of_any_size_are_only_not_proven():
    """Weights and a base so large that e^(-2u) is no number."""
    tensors, labels = random_problem(3), [0, 1, 2, 1, 0]
    tensors["w_in"] = (tensors["w_in"][0], [value * 2.0**99 for value in tensors["w_in"][1]])
    advice = random_advice(3) | {"bits": 0, "base": [2**40, -(2**40)]}
    spec = finite_spec(tensors, labels, activation="gelu_tanh")
    found = verdict(tensors, labels, spec=spec, **advice, form="tables", steps=[1] * 4)
    assert found.verdict == "accepted" and found.proven["certified"] == 0


REFUSED = {
    "a code too few": ({"codes": [[]] * 4}, "4 codes"),
    "a code too many": ({"codes": [[]] * 6}, "6 codes"),
    "half a pair": ({"codes": [[0]] + [[]] * 4}, "not pairs"),
    "no such feature": ({"codes": [[4, 1]] + [[]] * 4}, "not pairs"),
    "a feature from the end": ({"codes": [[-1, 1]] + [[]] * 4}, "not pairs"),
    "no features": ({"features": [], "codes": [[]] * 5}, "0 features"),
    "another width": ({"base": [0, 0, 0]}, "3 entries; expected 2"),
    "features of another width": ({"features": [[1, 2, 3]] * 4}, "3 entries; expected 2"),
    "a step of 0": ({"steps": [0, 1, 1, 1]}, "from 1 to"),
    "a step too few": ({"steps": [1, 1, 1]}, "3 entries; expected 4"),
    "kept in tables": ({"kept": 1}, "unknown key 'kept'"),
    "another form": ({"form": "trust"}, "expected charts or exact or tables"),
    "a code that is a number": ({"codes": [1, 2, 3, 4, 5]}, "expected a list"),
    "a strength that is a float": ({"codes": [[0, 0.5]] + [[]] * 4}, "numbers are integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_advice_is_refused(name):
    changed, reason = REFUSED[name]
    tensors, labels = random_problem(0), [0, 1, 2, 1, 0]
    advice = {**random_advice(0), "form": "tables", "steps": [1] * 4} | changed
    refused = verdict(tensors, labels, **advice)
    assert refused.verdict == "rejected"
    assert reason in refused.reason


def test_length_is_that_of_the_formulas():
    """Of network, explanation and residuals; then of each form."""
    T, I, D, N, C, L, K = 5, 3, 2, 6, 3, 4, 3  # noqa: E741
    tensors, labels, advice = random_problem(3), [0] * 5, random_advice(3)
    steps = [1 << 20] * L  # so that every strength lies between 0 and a step up or down
    network = T * (I * D + D * C) + N * D * C
    explained = network + (L + 1) * D * N + T * K * D
    residual = D * N * (C + D + 2) + T * D * (C + D + 1)
    signs = {(i, s < 0) for code in advice["codes"] for i, s in zip(code[::2], code[1::2], strict=True)}
    places = len({(i, node) for i, negative in signs for node in ((-1, 0) if negative else (0, 1))})
    tables = verdict(tensors, labels, **advice, form="tables", steps=steps).length
    pairs, single = (L + 1) * L * N, places * N + (places + 1) * N * C
    each = T * (K * (4 + 2 * C) + K * (K - 1) // 2)
    assert tables.multiply_adds == explained + residual + pairs + single + each
    assert tables.evaluations == N * (1 + 1 + places)
    exact = verdict(tensors, labels, form="exact")
    assert exact.length.multiply_adds == network + T * N * (D + C) and exact.length.evaluations == T * N


def test_length_of_tables_does_not_grow_with_the_neurons_of_an_input():
    """Twice the inputs with the same codes: what is added does not depend on the number of neurons."""

    def length(neurons: int, copies: int):
        tensors = random_problem(1, T=copies, N=neurons)
        code = {**random_advice(1, T=1), "form": "tables", "steps": [1000] * 4}
        code["codes"] = code["codes"] * copies
        return verdict(tensors, [0] * copies, **code).length

    added = [length(n, 6).multiply_adds - length(n, 3).multiply_adds for n in (8, 16)]
    assert added[0] == added[1] > 0
    assert length(8, 6).evaluations == length(8, 3).evaluations > 0

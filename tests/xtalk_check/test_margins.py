"""Ties, rounding and claims."""

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx
from reference.product_space import (
    certificate,
    codebook,
    container,
    count_right,
    encoded,
    random_network,
    solver,
    spec,
)
from xtalk_check import check
from xtalk_check.claims import settle
from xtalk_check.errors import Rejected
from xtalk_check.network import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.rounding import gamma, slack
from xtalk_check.work import PRECISION, Work


def loaded(tensors, kind: str, residual: bool):
    weights = parse_weights(container(tensors))
    fields = Fields({"activation": kind, "residual": residual}, "task")
    tokens, classes = tensors["embed"][0][0], tensors["b_unembed"][0][0]
    return Network.load(fields, weights, tokens, classes, Work()), weights


def error_of(found, n: int) -> arb:
    network, weights = found
    return network.rounding_error(weights, n, Work())


def float32_logits(tensors, tokens, residual: bool, dtype) -> np.ndarray:
    """The deployed chain with ReLU, every operation rounded to dtype."""
    w = {name: np.array(values, dtype).reshape(shape) for name, (shape, values) in tensors.items()}
    x = np.zeros(w["embed"].shape[1], dtype)
    for t in tokens:
        x = x + w["embed"][t]
    y = np.maximum(x @ w["w_in"] + w["b_in"], dtype(0)) @ w["w_out"] + w["b_out"]
    return (y + x if residual else y) @ w["unembed"] + w["b_unembed"]


def test_rounding_stays_within_its_bound():
    """In float32, on many inputs."""
    rng = np.random.default_rng(0)
    with ctx.workprec(PRECISION):
        for seed in range(6):
            tensors = random_network(seed, 8, 16, 24, 5)
            tensors = {
                name: (shape, [float(np.float32(v * 1.1)) for v in values])
                for name, (shape, values) in tensors.items()
            }
            network, weights = loaded(tensors, "relu", seed % 2 == 0)
            bound = float(network.rounding_error(weights, 4, Work()))
            seen = 0.0
            for _ in range(200):
                tokens = rng.integers(0, 8, 4)
                exact = float32_logits(tensors, tokens, seed % 2 == 0, np.float64)
                seen = max(
                    seen,
                    float(np.abs(float32_logits(tensors, tokens, seed % 2 == 0, np.float32) - exact).max()),
                )
            assert 0 < seen <= bound


def ones(bias: float = 0.0) -> dict:
    """One number all the way: x = n e, h = x, y = h, logit = y, and the same bias to each."""
    tensors = {name: ((1, 1), [1.0]) for name in ("embed", "w_in", "w_out", "unembed")}
    return tensors | {name: ((1,), [bias]) for name in ("b_in", "b_out", "b_unembed")}


def test_rounding_bound_by_hand():
    """Each stage adds its own rounding."""
    unit = 2.0**-24
    with ctx.workprec(PRECISION):
        network, weights = loaded(ones(), "relu", False)
        found = float(network.rounding_error(weights, 4, Work()))
        # x: 4 units, h: 2, phi: 2^-20 is 16, y: N + 2 is 3, logit: 2; all of numbers of size 4
        assert found == pytest.approx(4 * unit * (4 + 2 + 16 + 3 + 2), rel=1e-4)
        network, weights = loaded(ones(), "relu", True)
        found = float(network.rounding_error(weights, 4, Work()))
        # the residual stream adds x's own error and 3 units more of it, and the logit is twice as large
        assert found == pytest.approx(4 * unit * (4 + 2 + 16 + 3 + 4 + 3 + 2 * 2), rel=1e-4)


def test_biases_count_in_rounding():
    """A bias of 1, or -1, makes the numbers of each stage larger: h is 5, y is 6 and the logit 7."""
    for bias in (1.0, -1.0):
        with ctx.workprec(PRECISION):
            found = float(error_of(loaded(ones(bias), "relu", False), 4))
        assert found == pytest.approx(2.0**-24 * (4 * 4 + 5 * 2 + 5 * 16 + 6 * 3 + 7 * 2), rel=1e-4)


def test_errors_pass_the_activation_at_its_steepest_slope():
    """What x and h err by, 6 units of numbers of size 4, grows by the largest slope of GELU."""
    for kind, steepest in (("gelu", 1.1289042), ("gelu_tanh", 1.1289931)):
        with ctx.workprec(PRECISION):
            found = float(error_of(loaded(ones(), kind, False), 4))
        units = found / (4 * 2.0**-24) - (16 + 3 + 2)
        assert steepest <= units / 6 < steepest + 1e-3


def exact_bound(tensors, n: int) -> Fraction:
    """The bound with a residual path and ReLU, in rational numbers, term by term."""
    unit, tiny = Fraction(1, 2**24), Fraction(1, 2**100)

    def gamma(terms: int) -> Fraction:
        return terms * unit / (1 - terms * unit)

    def layer(inputs, error, weight: str, bias: str, terms: int):
        (rows, columns), w = tensors[weight]
        out, errors = [], []
        for j in range(columns):
            exact = abs(Fraction(tensors[bias][1][j]))
            exact += sum(inputs[i] * abs(Fraction(w[i * columns + j])) for i in range(rows))
            carried = sum(error[i] * abs(Fraction(w[i * columns + j])) for i in range(rows))
            out.append(exact)
            errors.append(carried + (exact + carried) * gamma(terms) + tiny)
        return out, errors

    (V, D), embed = tensors["embed"]
    N = tensors["b_in"][0][0]
    x = [n * max(abs(Fraction(embed[t * D + d])) for t in range(V)) for d in range(D)]
    x_error = [entry * gamma(n) + tiny for entry in x]
    h, h_error = layer(x, x_error, "w_in", "b_in", D + 1)
    active = [e + (a + e) * Fraction(1, 2**20) + tiny for a, e in zip(h, h_error, strict=True)]
    y, y_error = layer(h, active, "w_out", "b_out", N + 2)
    y_error = [a + b + (c + b) * gamma(N + 2) for a, b, c in zip(y_error, x_error, x, strict=True)]
    y = [a + b for a, b in zip(y, x, strict=True)]
    return max(layer(y, y_error, "unembed", "b_unembed", D + 1)[1])


def test_rounding_bound_in_rational_numbers():
    """Errors of errors and all: 64 tokens, of which the first or another is the largest; the worst logit."""
    for seed in range(4):
        tensors = random_network(seed, 3, 3, 4, 3)
        expected = exact_bound(tensors, 64)
        with ctx.workprec(PRECISION):
            found = error_of(loaded(tensors, "relu", True), 64)
            assert found.upper() >= arb(expected.numerator) / expected.denominator
        assert float(found) == pytest.approx(float(expected), rel=1e-8)  # the ball of the slope is wider


def test_underflow_counts_at_every_stage():
    """A token of zeros, weights of 1: whatever remains is what underflow may add."""
    tensors = random_network(0, 1, 1, 1, 1) | {"embed": ((1, 1), [0.0])}
    tensors |= {name: ((1, 1), [1.0]) for name in ("w_in", "w_out", "unembed")}
    tensors |= {name: ((1,), [0.0]) for name in ("b_in", "b_out", "b_unembed")}
    with ctx.workprec(PRECISION):
        for residual, numbers in ((False, 5), (True, 6)):  # x, h, phi(h), y, logit; and x once more
            found = float(error_of(loaded(tensors, "relu", residual), 3))
            assert found * 2.0**100 == pytest.approx(numbers, rel=1e-4)


def test_sums_without_a_useful_bound_are_refused():
    assert gamma((1 << 23) - 1) < arb(1.01)
    with pytest.raises(Rejected, match="no useful bound"):
        gamma(1 << 23)


def test_rounding_is_that_of_the_largest_token():
    found = []
    for embed in ([1.0, 1.0, 1.0, 1.0], [1.0, -3.0, 1.0, 1.0]):
        tensors = random_network(0, 4, 1, 2, 2) | {"embed": ((4, 1), embed)}
        with ctx.workprec(PRECISION):
            network, weights = loaded(tensors, "relu", True)
            found.append(float(network.rounding_error(weights, 4, Work())))
    assert found[1] > 1.5 * found[0]


def test_float32_asks_for_a_margin():
    """Where a margin is smaller than what rounding can change, only the real-valued theorem holds."""
    for theorem in ("T3", "brute_force"):
        advice = {"rest": codebook(range(4))} if theorem == "T3" else {}
        for hair, expected in ((0.5, 64), (2.0**-22, 45)):
            close = solver(4)
            close["b_unembed"] = ((4,), [0.0, 0.0, 1 - hair, 0.0])  # with both, 3 beats 2 by a hair
            weights = container(close)
            given = encoded(certificate(weights, theorem, 0, **advice))
            real = check(given, encoded(spec(theorem)), weights)
            rounded = check(given, encoded(spec(theorem, arithmetic="float32")), weights)
            assert real.proven["certified"] >= rounded.proven["certified"]
            assert (real.proven["certified"], rounded.proven["certified"]) == (
                count_right(close, spec()["task"])[0],
                expected,
            )


def test_ties_lose():
    """A network of equal logits: nothing is right; and no specification can ask for more."""
    zero = {name: (shape, [0.0] * len(values)) for name, (shape, values) in solver(4).items()}
    weights = container(zero)
    for theorem in ("T3", "brute_force"):
        given = encoded(certificate(weights, theorem, 0))
        assert check(given, encoded(spec(theorem)), weights).proven["certified"] == 0
        assert "expected lose" in check(given, encoded(spec(theorem, ties="lowest")), weights).reason


def test_claims_must_follow():
    for claimed, total in ((5, 9), (0, 9)):
        assert settle(Fields({"certified": claimed, "total": total}, "claim"), 5, 9) == {
            "certified": 5,
            "total": 9,
        }
    for claimed, total, reason in (
        (6, 9, "6 inputs are answered right; 5"),
        (5, 10, "about 10"),
        (5, 8, "about 8"),
    ):
        with pytest.raises(Rejected, match=reason):
            settle(Fields({"certified": claimed, "total": total}, "claim"), 5, 9)


def test_slack_is_twice_the_error():
    with ctx.workprec(PRECISION):
        network, weights = loaded(solver(4), "relu", False)
        fields = Fields({"ties": "lose", "arithmetic": "float32"}, "task")
        assert (
            slack(fields, lambda: network.rounding_error(weights, 3, Work()))
            >= 2 * network.rounding_error(weights, 3, Work()).lower()
            > arb(0)
        )

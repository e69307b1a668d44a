"""Rounding of attention and of networks on data: bounds against plain loops, and against float32."""

from contextlib import ExitStack
from functools import partial
from math import exp
from unittest.mock import patch

import numpy as np
import pytest
from flint import arb, ctx
from reference.attention_space import (
    attention_certificate,
    attention_solver,
    attention_spec,
    placed,
    positions_certificate,
    positions_solver,
    positions_spec,
    random_attention,
    run,
)
from reference.finite_data import finite_certificate, finite_spec, random_problem
from reference.product_space import codebook, container, encoded
from xtalk_check import check, rounding
from xtalk_check.finite import Network
from xtalk_check.positions import Tables
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.tasks import Task
from xtalk_check.work import PRECISION, Work


class Loops:
    """The formulas of the lemmas, in float64, with constants that may be those of a coarse arithmetic."""

    def __init__(self, tensors, unit: float, tiny: float) -> None:
        self.tensors, self.unit, self.tiny = tensors, unit, tiny

    def gamma(self, terms: int) -> float:
        return terms * self.unit / (1 - terms * self.unit)

    def largest(self, name: str) -> list[float]:
        (rows, columns), values = self.tensors[name]
        return [max(abs(values[r * columns + c]) for r in range(rows)) for c in range(columns)]

    def layer(self, x, error, weight: str, bias: str | None, terms: int):
        (rows, columns), w = self.tensors[weight]
        out, errors = [], []
        for j in range(columns):
            exact = abs(self.tensors[bias][1][j]) if bias else 0.0
            exact += sum(x[i] * abs(w[i * columns + j]) for i in range(rows))
            carried = sum(error[i] * abs(w[i * columns + j]) for i in range(rows))
            out.append(exact)
            errors.append(carried + (exact + carried) * self.gamma(terms) + self.tiny)
        return out, errors

    def logits(self, y, y_error, x, x_error, residual: bool, terms: int) -> float:
        if residual:
            y_error = [
                a + b + (c + b) * self.gamma(terms) for a, b, c in zip(y_error, x_error, x, strict=True)
            ]
            y = [a + b for a, b in zip(y, x, strict=True)]
        return max(self.layer(y, y_error, "unembed", "b_unembed", len(y) + 1)[1])

    def softmax(self, x, x_error, n: int) -> float:
        (q, q_error), (k, k_error) = (self.layer(x, x_error, w, None, len(x)) for w in ("w_query", "w_key"))
        score = sum(a * b for a, b in zip(q, k, strict=True))
        carried = sum(e * (b + f) + a * f for a, e, b, f in zip(q, q_error, k, k_error, strict=True))
        error = carried + (score + carried) * self.gamma(len(q)) + self.tiny
        moved = error + 2 * (score + error) * self.unit + 2 * 2.0**-20
        return 2 * (moved + self.gamma(n + 2))

    def attention(self, n: int, residual: bool) -> float:
        x = self.largest("embed")
        size, zeros = len(x), [0.0] * len(x)
        grown = exp(self.softmax(x, zeros, n)) - 1 + 4 * n * self.tiny
        mixed = [a * (grown + (1 + grown) * self.gamma(n)) + self.tiny for a in x]
        value, error = self.layer(x, mixed, "w_value", None, size)
        y, y_error = self.layer(value, error, "w_out", "b_out", len(value) + 2)
        return self.logits(y, y_error, x, zeros, residual, len(value) + 2)

    def positions(self, n: int, spread: float) -> tuple[float, float]:
        x = [a + b for a, b in zip(self.largest("embed"), self.largest("position"), strict=True)]
        x_error = [a * self.unit + self.tiny for a in x]
        drift, lost = self.softmax(x, x_error, n), 4 * n * self.tiny
        grown = exp(drift)
        mixed = [
            (grown + lost) * (e + (a + e) * self.gamma(n)) + lost * a + self.tiny
            for a, e in zip(x, x_error, strict=True)
        ]
        value, error = self.layer([grown * a for a in x], mixed, "w_value", None, len(x))
        y, y_error = self.layer(value, error, "w_out", "b_out", len(value) + 2)
        error = self.logits(y, y_error, x, x_error, True, len(value) + 2)
        return drift, grown * (2 * error + spread * (grown - 1))

    def embedded(self) -> list[list[float]]:
        """x of every input."""
        (inputs, size), z = self.tensors["data.inputs"]
        (_, width), w = self.tensors["embed"]
        return [
            [
                self.tensors["b_embed"][1][d] + sum(z[t * size + i] * w[i * width + d] for i in range(size))
                for d in range(width)
            ]
            for t in range(inputs)
        ]

    def data(self, steepest: float, residual: bool) -> float:
        z = self.largest("data.inputs")
        _, x_error = self.layer(z, [0.0] * len(z), "embed", "b_embed", len(z) + 1)
        x = [max(map(abs, column)) for column in zip(*self.embedded(), strict=True)]
        h, h_error = self.layer(x, x_error, "w_in", "b_in", len(x) + 1)
        active = [e * steepest + (a + e) * 2.0**-20 + self.tiny for a, e in zip(h, h_error, strict=True)]
        y, y_error = self.layer(h, active, "w_out", "b_out", len(h) + 2)
        return self.logits(y, y_error, x, x_error, residual, len(h) + 2)


def coarse(unit: float, tiny: float) -> ExitStack:
    """Constants so large that errors of errors show, too."""
    stack = ExitStack()
    stack.enter_context(patch.object(rounding, "UNIT", arb(unit)))
    stack.enter_context(patch.object(rounding, "UNDERFLOW", arb(tiny)))
    return stack


def attention_error(tensors, n: int, residual: bool) -> float:
    with ctx.workprec(PRECISION):
        return float(rounding.of_attention(residual, n, parse_weights(container(tensors)), Work()).upper())


def data_error(tensors, residual: bool) -> float:
    with ctx.workprec(PRECISION):
        asked = Fields(finite_spec(tensors, [0] * 5, residual=residual)["task"], "task")
        weights = parse_weights(container(tensors))
        return float(Network.load(asked, weights, Work()).rounding_error(weights, Work()).upper())


def test_rounding_of_attention_is_that_of_the_formula():
    for seed, residual in ((0, False), (1, True)):
        tensors = random_attention(seed, 4, 3, 2, 3, 0.3)
        for n in (1, 5):
            for unit, tiny in ((2.0**-24, 0.0), (2.0**-8, 2.0**-9)):
                with coarse(unit, tiny):
                    found = attention_error(tensors, n, residual)
                assert found == pytest.approx(Loops(tensors, unit, tiny).attention(n, residual), rel=1e-10)


def test_rounding_of_positions_is_that_of_the_formula():
    for seed, n in ((0, 2), (1, 5)):
        tensors = placed(random_attention(seed, 4, 3, 2, 4, 0.3), n, seed)
        weights, question = parse_weights(container(tensors)), Task("max", n, (0, 1, 2, 3), 4)
        rows = [run(tensors | {"w_value": ((3, 2), [0.0] * 6)}, [t] * n, True)[1] for t in range(4)]
        spread = max(max(row) - min(row) for row in rows)
        for unit, tiny in ((2.0**-24, 0.0), (2.0**-8, 2.0**-9)):
            with coarse(unit, tiny), ctx.workprec(PRECISION):
                drift, needed = Tables.load(weights, question, Work()).rounded(weights, n, Work())
            found = float(drift.upper()), float(needed)
            assert found == pytest.approx(Loops(tensors, unit, tiny).positions(n, spread), rel=1e-8)
            assert float(drift.lower()) == pytest.approx(-found[0])


def test_rounding_of_data_is_that_of_the_formula():
    for seed, residual in ((0, False), (1, True)):
        tensors = random_problem(seed)
        for unit, tiny in ((2.0**-24, 0.0), (2.0**-8, 2.0**-9)):
            with coarse(unit, tiny):
                found = data_error(tensors, residual)
            expected = Loops(tensors, unit, tiny).data(1.1289042, residual)
            assert expected < found < expected * 1.001  # the ball of the slope is wider


def deployed(tensors, tokens, residual: bool, dtype) -> np.ndarray:
    """The logits with every operation rounded to dtype."""
    w = {name: np.array(values, dtype).reshape(shape) for name, (shape, values) in tensors.items()}
    x = w["embed"][list(tokens)]
    score = (x @ w["w_key"]) @ (x[-1] @ w["w_query"])
    grown = np.exp(score - score.max())
    y = (grown / grown.sum()) @ x @ w["w_value"] @ w["w_out"] + w["b_out"]
    return (y + x[-1] if residual else y) @ w["unembed"] + w["b_unembed"]


def test_attention_in_float32_stays_within_its_bound():
    rng = np.random.default_rng(0)
    for seed, scale in ((0, 0.3), (1, 1.0), (2, 2.0)):
        tensors = random_attention(seed, 8, 16, 8, 5, scale)
        bound, seen = attention_error(tensors, 6, seed % 2 == 0), 0.0
        for _ in range(100):
            tokens = rng.integers(0, 8, 6)
            pair = [deployed(tensors, tokens, seed % 2 == 0, dtype) for dtype in (np.float32, np.float64)]
            seen = max(seen, float(np.abs(pair[0] - pair[1]).max()))
        assert 0 < seen <= bound


def test_attention_in_float32_asks_for_a_margin():
    """Gains that make the margins smaller: of none is more proven in float32, of the smallest nothing."""
    for solver, certify, asked in (
        (attention_solver(4), partial(attention_certificate, rest=codebook(range(4))), attention_spec),
        (positions_solver(4, 3), positions_certificate, positions_spec),
    ):
        found = []
        for gain in (1.0, 2.0**-25):
            shape, values = solver["unembed"]
            tensors = solver | {"unembed": (shape, [value * gain for value in values])}
            tensors |= {"b_unembed": ((4,), [1.0] * 4)}  # whose rounding does not shrink
            weights = container(tensors)
            given = certify(weights, 0)
            verdicts = [
                check(encoded(given), encoded(asked(arithmetic=arithmetic)), weights)
                for arithmetic in ("real", "float32")
            ]
            found.append([verdict.proven["certified"] for verdict in verdicts])
        assert found == [[64, 64], [64, 0]]


def test_data_in_float32_asks_for_a_margin():
    """Twice the error is not proven, and a little more is."""
    tensors, labels = random_problem(3, T=1), [0]
    tensors |= {"w_out": ((6, 2), [0.0] * 12), "b_out": ((2,), [0.0] * 2), "unembed": ((2, 3), [0.0] * 6)}
    for share, certified in ((0.99, 0), (1.01, 1)):
        margin = 2.0**-22
        for _ in range(20):  # the bias is one of the numbers whose rounding counts
            tensors |= {"b_unembed": ((3,), [margin, 0.0, 0.0])}
            error = data_one(tensors)
            margin = float(np.float32(2 * error * share))
        spec = finite_spec(tensors, labels, arithmetic="float32")
        given = finite_certificate(tensors, 0, 1, form="exact")
        found = check(encoded(given), encoded(spec), container(tensors))
        assert found.proven["certified"] == certified, found


def data_one(tensors) -> float:
    with ctx.workprec(PRECISION):
        weights = parse_weights(container(tensors))
        network = Network.load(Fields(finite_spec(tensors, [0])["task"], "task"), weights, Work())
        return float(network.rounding_error(weights, Work()).upper())

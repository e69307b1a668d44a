"""Certificates of T1 by charts that were tampered with: each is rejected, for its reason."""

import re
from copy import deepcopy

import pytest
from reference.finite_data import finite_certificate, finite_spec, logits, random_problem
from reference.product_space import container, encoded
from xtalk_check import check

TENSORS, T = random_problem(5, T=6), 6
FOUND = [logits(TENSORS, t, "gelu", True) for t in range(T)]
LABELS = [row.index(max(row)) for row in FOUND]
WEIGHTS, UNIT = container(TENSORS), 1 << 20
SPEC = finite_spec(TENSORS, LABELS)


def mlp_input(t: int) -> list[float]:
    width, embed = TENSORS["data.inputs"][0][1], TENSORS["embed"][1]
    z = TENSORS["data.inputs"][1][width * t : width * (t + 1)]
    return [
        b + sum(z[i] * embed[2 * i + d] for i in range(width)) for d, b in enumerate(TENSORS["b_embed"][1])
    ]


CHARTS = [[LABELS[t], 64, *(round(entry * UNIT) for entry in mlp_input(t))] for t in range(T)]
GOOD = finite_certificate(TENSORS, T, T, form="charts", bits=20, charts=CHARTS, codes=list(range(T)))


def verdict(given, wanted=SPEC):
    return check(encoded(given), encoded(wanted), WEIGHTS)


def with_(path: str, value) -> dict:
    changed = deepcopy(GOOD)
    *inner, last = path.split(".")
    target = changed
    for key in inner:
        target = target[int(key)] if key.isdigit() else target[key]
    target[int(last) if last.isdigit() else last] = value
    return changed


def test_every_input_in_a_small_chart_of_its_own_is_certified():
    assert verdict(GOOD).verdict == "accepted"


OTHER = next(t for t in range(T) if LABELS[t] != LABELS[0])
TAMPERED = {
    "one more than there are": (with_("claim.certified", T + 1), "7 inputs are answered right; 6 are proven"),
    "another total": (with_("claim.total", T - 1), "about 5 inputs; the task has 6"),
    "the chart of another label": (with_("advice.codes.0", OTHER), "5 are proven"),
    "a label changed": (with_("advice.charts.0.0", LABELS[OTHER]), "5 are proven"),
    "a point moved": (with_("advice.charts.0.2", CHARTS[0][2] + 65), "5 are proven"),
    "a ball so large that nothing is known in it": (
        with_("advice.charts.0", [LABELS[0], 1 << 40, 1 << 33, 1 << 33]),
        "5 are proven",
    ),
    "a negative radius": (with_("advice.charts.0.1", -64), "not a label, a radius"),
    "no such label": (with_("advice.charts.0.0", 3), "not a label, a radius"),
    "no such chart": (with_("advice.codes.0", T), "from 0 to 5"),
    "a coordinate too many": (with_("advice.charts.0", [*CHARTS[0], 0]), "5 entries; expected 4"),
    "a coordinate out of range": (with_("advice.charts.0.2", (1 << 40) + 1), "expected an integer from"),
    "bits that shrink the ball's distance": (with_("advice.bits", 41), "from 0 to 40"),
    "a float": (with_("advice.charts.0.2", 0.5), "numbers are integers"),
    "a table in the advice": (with_("advice.table", [[0]]), "unknown key 'table'"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_charts(name):
    given, reason = TAMPERED[name]
    found = verdict(given)
    assert found.verdict == "rejected" and re.search(reason, found.reason), found.reason


def lacking(key: str) -> dict:
    """The specification without a field of its task."""
    return SPEC | {"task": {k: v for k, v in SPEC["task"].items() if k != key}}


SPECS = {
    "no word on the residual path": (lacking("residual"), "lacks residual"),
    "something that nobody asked for": (finite_spec(TENSORS, LABELS, risk=1), "unknown key 'risk'"),
    "other labels": (
        finite_spec(TENSORS, [(label + 1) % 3 for label in LABELS]),
        "0 are proven",
    ),
    "another activation": (SPEC | {"task": SPEC["task"] | {"activation": "relu"}}, "expected gelu"),
}


@pytest.mark.parametrize("name", SPECS)
def test_charts_for_another_specification(name):
    wanted, reason = SPECS[name]
    found = verdict(GOOD, wanted)
    assert found.verdict == "rejected" and re.search(reason, found.reason), found.reason

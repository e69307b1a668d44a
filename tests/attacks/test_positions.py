"""Certificates about positions that were tampered with, and networks that are wrong on purpose."""

from functools import partial
from hashlib import sha256

import pytest
from reference.attention_space import (
    count_right_by_attention,
    positions_certificate,
    positions_solver,
    positions_spec,
    with_value,
)
from reference.product_space import container, encoded
from xtalk_check import check

TENSORS = positions_solver(4, 3)
WEIGHTS = container(TENSORS)
GOOD = positions_certificate(WEIGHTS, 64)


def verdict(given=GOOD, wanted=None, weights: bytes = WEIGHTS):
    return check(encoded(given), encoded(wanted or positions_spec()), weights)


FILES = {
    "one more": (GOOD | {"claim": {"certified": 65, "total": 64}}, positions_spec(), "are proven"),
    "another total": (positions_certificate(WEIGHTS, 16, 16), positions_spec(), "claim is about 16 inputs"),
    "advice": (GOOD | {"advice": {"order": [3, 2, 1, 0]}}, positions_spec(), "unknown key 'order'"),
    "another theorem": (GOOD | {"theorem": "T3 attention"}, positions_spec(), "expected T3 positions"),
    "a longer sequence": (GOOD, positions_spec(n=4), "position has shape"),
    "min": (GOOD, positions_spec(name="min"), "are proven"),
    "other classes": (GOOD, positions_spec(classes=[0, 1, 3, 2]), "are proven"),
    "two tokens of a class": (GOOD, positions_spec(classes=[0, 1, 2, 2]), "an answer of their own"),
    "a path of its own": (GOOD, positions_spec(residual=True), "unknown key 'residual'"),
    "no arithmetic": (GOOD, positions_spec(arithmetic="float16"), "expected real or float32"),
}


@pytest.mark.parametrize("name", FILES)
def test_tampered_files(name):
    given, wanted, reason = FILES[name]
    found = verdict(given, wanted)
    assert found.verdict == "rejected" and reason in found.reason, found.reason


altered = partial(with_value, TENSORS)


WRONG = {
    "deaf to the largest": altered("w_key", 12, 0.0),
    "no scores": TENSORS | {"w_query": (TENSORS["w_query"][0], [0.0] * 16)},
    "a bias towards 0": altered("b_unembed", 0, 6.0),
    "a bias before the answers": altered("b_out", 1, 6.0),
    "the first position draws": altered("position", 0, 9.0),
    "the last position answers": altered("position", 9, 6.0),
    "an output lost": altered("unembed", 15, 0.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_networks_that_are_wrong_on_purpose(name):
    tensors = WRONG[name]
    weights, (right, total) = container(tensors), count_right_by_attention(tensors, positions_spec()["task"])
    assert right < total
    assert "are proven" in verdict(positions_certificate(weights, right + 1), weights=weights).reason
    assert verdict(positions_certificate(weights), weights=weights).proven["certified"] <= right


def test_containers_are_those_of_attention_with_positions():
    for changed, reason in (
        ({k: v for k, v in TENSORS.items() if k != "position"}, "lack position"),
        (TENSORS | {"position": ((3, 2), [0.0] * 6)}, "position has shape"),
        (TENSORS | {"w_in": ((4, 4), [0.0] * 16)}, "have w_in"),
    ):
        weights = container(changed)
        given = GOOD | {"weights": sha256(weights).hexdigest()}
        assert reason in verdict(given, weights=weights).reason


def test_the_good_one_is_accepted():
    assert (verdict().verdict, verdict().exit_code) == ("accepted", 0)

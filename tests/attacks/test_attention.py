"""Certificates about attention that were tampered with, and networks that are wrong on purpose."""

from copy import deepcopy
from functools import partial
from hashlib import sha256

import pytest
from reference.attention_space import (
    attention_certificate,
    attention_solver,
    attention_spec,
    count_right_by_attention,
    with_value,
)
from reference.product_space import codebook, container, encoded
from xtalk_check import check

TENSORS = attention_solver(4)
WEIGHTS = container(TENSORS)
GOOD = attention_certificate(WEIGHTS, 64)


def verdict(given=GOOD, wanted=None, weights: bytes = WEIGHTS):
    return check(encoded(given), encoded(wanted or attention_spec()), weights)


def with_(part: str, **changed) -> dict:
    given = deepcopy(GOOD)
    given[part] |= changed
    return given


TAMPERED = {
    "one more": (with_("claim", certified=65), "are proven"),
    "another total": (with_("claim", certified=16, total=16), "claim is about 16 inputs"),
    "no query columns": (
        GOOD | {"advice": {k: v for k, v in GOOD["advice"].items() if k != "query"}},
        "lacks query",
    ),
    "a query column of two classes": (
        with_("advice", query=codebook([0, 0, 0], [0, 0, 1, 2])),
        "tokens of several classes",
    ),
    "anchor blocks of two classes": (with_("advice", anchor=codebook([0, 0, 1, 2])), "of several classes"),
    "a token too few": (with_("advice", query=codebook([0, 0, 0], [0, 1, 2])), "3 entries; expected 4"),
    "an empty column": (with_("advice", query=codebook([0, 0, 0, 0], [0, 1, 3, 3])), "without tokens"),
    "a column out of range": (with_("advice", rest=codebook([0] * 5, [0, 1, 2, 4])), "from 0 to 3"),
    "too many bits": (with_("advice", bits=21), "from 0 to 20"),
    "a shift of its own": (with_("advice", shift=3), "unknown key 'shift'"),
    "T3's theorem": (GOOD | {"theorem": "T3"}, "expected T3 attention"),
    "scores as advice": (with_("advice", scores=[[0] * 4] * 4), "unknown key 'scores'"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_certificates(name):
    given, reason = TAMPERED[name]
    found = verdict(given)
    assert found.verdict == "rejected" and reason in found.reason, found.reason


SPECS = {
    "another n": (attention_spec(n=4), "64 inputs; the task has 256"),
    "min": (attention_spec(name="min"), "are proven"),
    "a residual path and other classes": (attention_spec(residual=True, classes=[3, 2, 1, 0]), "are proven"),
    "an activation": (attention_spec(activation="relu"), "unknown key 'activation'"),
    "majority": (attention_spec(name="majority"), "not a task of the attention theorem"),
    "T3": (attention_spec() | {"theorem": "T3"}, "expected T3"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_certificate_for_another_specification(name):
    wanted, reason = SPECS[name]
    found = verdict(wanted=wanted)
    assert found.verdict == "rejected" and reason in found.reason, found.reason


altered = partial(with_value, TENSORS)


WRONG = {
    "deaf to the largest": altered("w_key", 12, 0.0),
    "no scores": TENSORS | {"w_query": (TENSORS["w_query"][0], [0.0] * 16)},
    "a bias towards 0": altered("b_unembed", 0, 1.0),
    "values swapped": altered("w_value", 10, -1.0),
    "an output lost": altered("unembed", 15, 0.0),
    "a bias before the answers": altered("b_out", 1, 1.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_networks_that_are_wrong_on_purpose(name):
    tensors = WRONG[name]
    weights, (right, total) = container(tensors), count_right_by_attention(tensors, attention_spec()["task"])
    assert right < total
    for rest in (codebook(range(4)), codebook([0] * 4)):
        given = attention_certificate(weights, right + 1, rest=rest, bits=20)
        assert "are proven" in verdict(given, weights=weights).reason
    given["claim"]["certified"] = 0
    assert verdict(given, weights=weights).proven["certified"] <= right


def test_containers_are_those_of_attention():
    for changed, reason in (
        (TENSORS | {"w_in": ((4, 4), [0.0] * 16)}, "have w_in"),
        ({k: v for k, v in TENSORS.items() if k != "w_key"}, "lack w_key"),
        (TENSORS | {"w_key": ((4, 2), [0.0] * 8)}, "w_key has shape"),
    ):
        weights = container(changed)
        given = GOOD | {"weights": sha256(weights).hexdigest()}
        assert reason in verdict(given, weights=weights).reason


def test_the_good_one_is_accepted():
    assert (verdict().verdict, verdict().exit_code) == ("accepted", 0)

"""Certificates of T2 that were tampered with: each is rejected, for its reason."""

from copy import deepcopy
from hashlib import sha256

import pytest
from reference.finite_data import finite_spec
from reference.product_space import certificate, container, encoded
from xtalk_check import check

SQUARE = (2, 2), [1.0, 0.0, 0.0, 1.0]
TENSORS = {  # two points, and the larger coordinate is the answer; the neurons say the same once more
    "data.inputs": ((2, 2), [1.0, 0.0, 0.25, 0.75]),
    "embed": SQUARE,
    "b_embed": ((2,), [0.0, 0.0]),
    "w_in": SQUARE,
    "b_in": ((2,), [0.0, 0.0]),
    "w_out": SQUARE,
    "b_out": ((2,), [0.0, 0.0]),
    "unembed": SQUARE,
    "b_unembed": ((2,), [0.0, 0.0]),
}
WEIGHTS = container(TENSORS)
SPEC = finite_spec(TENSORS, [0, 1]) | {"theorem": "T2"}
ADVICE = {
    "bits": 8,
    "base": [0, 0],
    "features": [[256, 0], [0, 256]],
    "regions": [[0, 16, 0, 200, 300], [1, 16, 0, 64, 64, 1, 150, 200]],
    "codes": [[0, 256], [1, 64, 192]],
}
GOOD = certificate(WEIGHTS, "T2", 2, 2, **ADVICE)


def verdict(given=GOOD, wanted=SPEC, weights=WEIGHTS):
    return check(encoded(given), encoded(wanted), weights)


def with_(part: str, **changed) -> dict:
    given = deepcopy(GOOD)
    given[part] |= changed
    return given


TAMPERED = {
    "one more": (with_("claim", certified=3), "3 inputs are answered right; 2 are proven|expected"),
    "another total": (with_("claim", total=3), "about 3 inputs"),
    "a ball that reaches the other answer": (
        with_("advice", regions=[[0, 190, 0, 200, 300], ADVICE["regions"][1]]),
        "region 0 is not proven",
    ),
    "a box that reaches it": (
        with_("advice", regions=[[0, 16, 0, -20, 300], ADVICE["regions"][1]]),
        "region 0 is not proven",
    ),
    "the other answer": (
        with_("advice", regions=[[1, *ADVICE["regions"][0][1:]], ADVICE["regions"][1]]),
        "region 0 is not proven",
    ),
    "the other feature": (
        with_("advice", regions=[[0, 16, 1, 200, 300], ADVICE["regions"][1]]),
        "region 0 is not proven",
    ),
    "a base elsewhere": (with_("advice", base=[-300, 0]), "region 0 is not proven"),
    "a code outside the box": (with_("advice", codes=[[0, 199], [1, 64, 192]]), "1 are proven"),
    "a code outside the ball": (with_("advice", codes=[[0, 290], [1, 64, 192]]), "1 are proven"),
    "another input's region": (with_("advice", codes=[[1, 64, 192], [1, 64, 192]]), "1 are proven"),
    "no code": (with_("advice", codes=[[], [1, 64, 192]]), "1 are proven"),
    "fewer bits": (with_("advice", bits=6), "region 1 is not proven|are proven"),
    "a margin as advice": (with_("advice", margins=[1, 1]), "unknown key 'margins'"),
    "T1": (GOOD | {"theorem": "T1"}, "expected T2"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_certificates(name):
    given, reasons = TAMPERED[name]
    found = verdict(given)
    assert found.verdict == "rejected" and any(reason in found.reason for reason in reasons.split("|"))


def test_labels_data_and_weights_are_the_verifiers():
    labels = finite_spec(TENSORS, [1, 1]) | {"theorem": "T2"}
    assert "1 are proven" in verdict(wanted=labels).reason
    moved = TENSORS | {"data.inputs": ((2, 2), [1.0, 0.5, 0.25, 0.75])}
    assert "certificate is about other weights" in verdict(weights=container(moved)).reason
    given = GOOD | {"weights": sha256(container(moved)).hexdigest()}
    assert "about other data" in verdict(given, weights=container(moved)).reason
    swapped = TENSORS | {"unembed": ((2, 2), [0.0, 1.0, 1.0, 0.0])}
    given = GOOD | {"weights": sha256(container(swapped)).hexdigest()}
    assert "region 0 is not proven" in verdict(given, weights=container(swapped)).reason


def test_the_good_one_is_accepted():
    assert verdict().proven == {"certified": 2, "total": 2, "regions": 2}

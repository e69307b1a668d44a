"""Certificates of T1 language that were tampered with or changed at random: nothing false is accepted."""

from copy import deepcopy
from hashlib import sha256
from math import ceil

import pytest
from attacks.test_fuzzing import paths, replaced, values
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.language_tail import explained_tail, language_certificate, language_spec, loss
from reference.product_space import container, encoded
from xtalk_check import check

(TENSORS, FEATURES), TARGETS = explained_tail(3), [0, 5, 2, 3, 5]
WEIGHTS, SPEC = container(TENSORS), language_spec(TENSORS, TARGETS)


def proven(advice: dict, tensors=TENSORS, spec=SPEC) -> int:
    loosest = language_certificate(tensors, 1 << 50, 5, **advice)
    return check(encoded(loosest), encoded(spec), container(tensors)).proven["micronats"]


GOOD = language_certificate(TENSORS, proven(FEATURES), 5, **FEATURES)
EXACT = language_certificate(TENSORS, proven({"form": "exact"}), 5, form="exact")
LOSS = proven({"form": "exact"})


def verdict(given=GOOD, wanted=SPEC, weights=WEIGHTS):
    return check(encoded(given), encoded(wanted), weights)


def with_(part: str, good=GOOD, **changed) -> dict:
    given = deepcopy(good)
    given[part] |= changed
    return given


def without(part: str, name: str) -> dict:
    given = deepcopy(GOOD)
    del given[part][name]
    return given


CLAIMED = GOOD["claim"]["micronats"]
UNPROVEN = "micronats per token are claimed"
TAMPERED = {
    "a micronat less": (with_("claim", micronats=CLAIMED - 1), f"{CLAIMED} are proven"),
    "no loss": (with_("claim", micronats=0), UNPROVEN),
    "a loss below 0": (with_("claim", micronats=-1), "from 0 to"),
    "a loss without end": (with_("claim", micronats=1 << 60), "from 0 to"),
    "fewer tokens": (with_("claim", tokens=4), "another number of tokens"),
    "more tokens": (with_("claim", tokens=6), "from 0 to 5"),
    "no tokens": (without("claim", "tokens"), "lacks tokens"),
    "true for 1": (with_("claim", micronats=True), "expected an integer"),
    "a claim of accuracy": (with_("claim", certified=5), "unknown key 'certified'"),
    "the truth, by features": (with_("claim", micronats=LOSS), UNPROVEN),
    "exactly, but less": (with_("claim", EXACT, micronats=LOSS - 1), UNPROVEN),
    "exactly, with features": (with_("advice", form="exact"), "unknown key"),
    "features, without any": (with_("advice", EXACT, form="features"), "lacks bits"),
    "errors as advice": (with_("advice", crosstalk=0), "unknown key 'crosstalk'"),
    "activations as advice": (with_("advice", readings=[[0] * 4] * 5), "unknown key 'readings'"),
    "gains of 0": (with_("advice", gains=[0] * 7), UNPROVEN),
    "gains turned round": (with_("advice", gains=[-g for g in FEATURES["gains"]]), UNPROVEN),
    "finer units": (with_("advice", bits=9), UNPROVEN + "|outside its knots"),
    "wide knots": (with_("advice", knots=[[-2048, 2048]] * 4), UNPROVEN),
    "knots elsewhere": (with_("advice", knots=[[1 << 30, 1 << 31]] * 4), "outside its knots"),
    "without knots": (without("advice", "knots"), "lacks knots"),
    "a large gain": (with_("advice", gains=[1 << 51] * 7), "from -1125899906842624"),
    "another theorem": (GOOD | {"theorem": "T1"}, "expected T1 language"),
    "other weights": (GOOD | {"weights": "0" * 64}, "about other weights"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_certificates(name):
    given, reasons = TAMPERED[name]
    found = verdict(given)
    assert found.verdict == "rejected" and any(reason in found.reason for reason in reasons.split("|"))


def altered(name: str, change) -> dict:
    shape, numbers = TENSORS[name]
    return TENSORS | {name: (shape, change(list(numbers)))}


WORSE = {
    "targets in another order": ({"targets": TARGETS[::-1]}, TENSORS),
    "a target beyond the vocabulary": ({"targets": [6, *TARGETS[1:]]}, TENSORS),
    "data in another order": ({}, altered("data.resid_mid", lambda v: v[3:] + v[:3])),
    "one number of the data": ({}, altered("data.resid_mid", lambda v: [v[0] + 1, *v[1:]])),
    "a gain of the first norm": ({}, altered("norm_in.weight", lambda v: [-v[0], *v[1:]])),
    "neurons in another order": ({}, altered("b_in", lambda v: v[::-1])),
    "no neurons": ({}, altered("w_out", lambda v: [0.0] * len(v))),
    "vocabulary in another order": ({}, altered("unembed", lambda v: v[1:] + v[:1])),
    "a bias of the last norm": ({}, altered("norm_out.bias", lambda v: [9.0, *v[1:]])),
    "a larger epsilon": ({"epsilon": 900_000}, TENSORS),
    "the other GELU": ({"activation": "gelu_tanh"}, TENSORS),
}


@pytest.mark.parametrize("name", WORSE)
def test_another_task_or_network_is_proven_anew_or_refused(name):
    """The exact proof follows what the verifier asks of what is loaded; a claim of another is not kept."""
    task, tensors = WORSE[name]
    weights = container(tensors)
    assert tensors is TENSORS or "about other weights" in verdict(EXACT, weights=weights).reason
    moved = EXACT | {"weights": sha256(weights).hexdigest()}
    if "data" in name:
        assert "about other data" in verdict(moved, weights=weights).reason
    asked = language_spec(tensors, TARGETS)
    asked["task"] |= task
    if "beyond" in name:
        assert "from 0 to 5" in verdict(moved, asked, weights).reason
        return
    now = proven({"form": "exact"}, tensors, asked)
    assert now != LOSS
    assert (verdict(moved, asked, weights).verdict == "accepted") == (now < LOSS)


def test_epsilon_is_positive():
    for epsilon in (0, -1, 1_000_001):
        asked = language_spec(TENSORS, TARGETS, epsilon=epsilon)
        assert "from 1 to 1000000" in verdict(EXACT, asked).reason


def test_a_pinned_specification_is_about_its_weights():
    asked = SPEC | {"weights": sha256(b"").hexdigest()}
    assert "specification is about other weights" in verdict(wanted=asked).reason


def test_weights_that_nobody_reads_are_refused():
    weights = container(TENSORS | {"b_unembed": ((6,), [9.0] * 6)})
    given = GOOD | {"weights": sha256(weights).hexdigest()}
    assert "b_unembed" in verdict(given, weights=weights).reason


def test_the_good_ones_are_accepted():
    assert verdict().proven == {"micronats": CLAIMED, "tokens": 5}
    assert verdict(EXACT).proven == {"micronats": LOSS, "tokens": 5}
    assert LOSS == ceil(1e6 * sum(loss(TENSORS, t, target) for t, target in enumerate(TARGETS)) / 5) < CLAIMED


@settings(max_examples=150)
@given(
    st.sampled_from([(c, path) for c in (GOOD, EXACT) for path in paths(c)]),
    values | st.lists(st.lists(st.integers(-(2**51), 2**51), max_size=4), min_size=3, max_size=5),
)
def test_changed_certificates_of_losses(place, new):
    certificate, path = place
    found = verdict(replaced(certificate, path, new))
    if found.verdict == "accepted":
        assert found.claim["tokens"] == 5 and found.claim["micronats"] >= LOSS
    else:
        assert found.verdict in ("rejected", "not a certificate") and found.reason


@settings(max_examples=80)
@given(st.sampled_from(list(paths(SPEC))), values)
def test_changed_specifications_of_losses(path, new):
    changed = replaced(SPEC, path, new)
    found = verdict(EXACT, changed)
    if found.verdict == "accepted":
        targets = changed["task"]["targets"]
        assert sum(loss(TENSORS, t, target) for t, target in enumerate(targets)) / 5 <= LOSS / 1e6 + 1e-3

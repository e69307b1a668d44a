"""Certificates, specifications and weights that were tampered with: each is rejected, for its reason."""

import json
import re
import struct
from copy import deepcopy
from hashlib import sha256

import pytest
from reference.product_space import certificate, codebook, container, count_right, encoded, solver, spec
from xtalk_check import check

TENSORS = solver(4)
WEIGHTS = container(TENSORS)
GOOD = certificate(WEIGHTS, "T3", 64, rest=codebook(range(4)))


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def verdict(given=GOOD, wanted=None, weights: bytes = WEIGHTS):
    given = given if isinstance(given, bytes) else encoded(given)
    wanted = wanted if isinstance(wanted, bytes) else encoded(wanted or spec())
    return check(given, wanted, weights)


def with_(path: str, value) -> dict:
    """The good certificate with another value somewhere."""
    changed = deepcopy(GOOD)
    *inner, last = path.split(".")
    target = changed
    for key in inner:
        target = target[key]
    target[last] = value
    return changed


def without(path: str) -> dict:
    changed = deepcopy(GOOD)
    *inner, last = path.split(".")
    target = changed
    for key in inner:
        target = target[key]
    del target[last]
    return changed


def raw(old: str, new: str) -> bytes:
    text = json.dumps(GOOD)
    assert old in text
    return text.replace(old, new, 1).encode()


def rehashed(tensors) -> tuple[dict, bytes]:
    """A certificate that names the changed weights, and the weights."""
    weights = container(tensors)
    return GOOD | {"weights": digest(weights)}, weights


def flipped(at: int, bit: int) -> bytes:
    return WEIGHTS[:at] + bytes([WEIGHTS[at] ^ 1 << bit]) + WEIGHTS[at + 1 :]


def altered(name: str, change) -> dict:
    shape, values = TENSORS[name]
    values = list(values)
    change(values)
    return TENSORS | {name: (shape, values)}


def swap(values) -> None:
    values[0], values[1] = values[1], values[0]


def zero(values) -> None:
    values[:] = [0.0] * len(values)


CLAIMS = {
    "claim plus one": (with_("claim.certified", 65), "65 inputs are answered right; 64 are proven"),
    "claim of everything, and more": (with_("claim.certified", 10**20), "64 are proven"),
    "another total": (with_("claim.total", 63), "about 63 inputs; the task has 64"),
    "negative claim": (with_("claim.certified", -1), "expected an integer from 0"),
    "negative total": (with_("claim.total", -64), "expected an integer from 0"),
    "claim without total": (without("claim.total"), "claim lacks total"),
    "claim is a list": (with_("claim", [64, 64]), "claim is not an object"),
    "claim of accuracy": (with_("claim.accuracy", 1), "unknown key 'accuracy'"),
}
NUMBERS = {
    "true for 1": (with_("advice.bits", True), "true; expected an integer"),
    "false for 0": (with_("advice.rest.blocks", [False, 1, 2, 3]), "false; expected an integer"),
    "digits in a string": (with_("claim.certified", "64"), '"64"; expected an integer'),
    "null for a number": (with_("advice.bits", None), "null; expected an integer"),
    "a float": (raw('"bits": 6', '"bits": 6.0'), "numbers are integers"),
    "an exponent": (raw('"certified": 64', '"certified": 64e0'), "numbers are integers"),
    "a huge exponent": (raw('"certified": 64', '"certified": 1e999999999'), "numbers are integers"),
    "NaN": (raw('"certified": 64', '"certified": NaN'), "numbers are integers"),
    "Infinity": (raw('"certified": 64', '"certified": Infinity'), "numbers are integers"),
    "a huge integer": (raw('"certified": 64', '"certified": ' + "9" * 5000), "5000 digits"),
    "an index that is a list": (with_("advice.bits", [6]), "expected an integer"),
}
STRUCTURE = {
    "duplicate key": (raw('"total": 64', '"total": 64, "total": 64'), "'total' twice"),
    "duplicate key, other value": (
        raw('"certified": 64', '"certified": 65, "certified": 64'),
        "'certified' twice",
    ),
    "extra key": (with_("note", "trust me"), "unknown key 'note'"),
    "extra advice": (with_("advice.tolerance", 1), "unknown key 'tolerance'"),
    "extra key in a codebook": (with_("advice.rest.centre", [0]), "unknown key 'centre'"),
    "advice is missing": (without("advice"), "lacks advice"),
    "a codebook is missing": (without("advice.anchor"), "lacks anchor"),
    "deep nesting": (b'{"format": ' + b"[" * 100_000, "nested too deeply"),
    "the task in the certificate": (with_("task", spec()["task"]), "unknown key 'task'"),
    "the tie rule in the advice": (with_("advice.ties", "lowest"), "unknown key 'ties'"),
}
CODEBOOKS = {
    "too few blocks": (with_("advice.rest", codebook(range(3))), "3 entries; expected 4"),
    "added tokens": (with_("advice.rest", codebook(range(5))), "expected"),
    "negative block": (with_("advice.rest", codebook([0, 0, 0, -1])), "from 0 to 3"),
    "block out of range": (with_("advice.rest", codebook([0, 1, 2, 4])), "from 0 to 3"),
    "column out of range": (with_("advice.rest", codebook([0, 0], [0, 1, 4, 1])), "from 0 to 3"),
    "no columns": (with_("advice.rest", {"blocks": [0, 1, 2, 3]}), "lacks columns"),
    "no blocks": (with_("advice.rest", {"columns": None}), "lacks blocks"),
    "empty column": (with_("advice.rest", codebook([0, 0, 0], [0, 0, 2, 2])), "column without tokens"),
    "columns for added tokens": (
        with_("advice.rest", codebook([0, 0], [0, 1, 0, 1, 0])),
        "5 entries; expected 4",
    ),
    "anchors of several classes": (
        with_("advice.anchor", codebook([0, 0, 1, 2])),
        "block 0 has tokens of several",
    ),
    "anchor columns that overlap classes": (
        with_("advice.anchor", codebook([0, 1, 2], [0, 1, 2, 2])),
        "block 2 has tokens of several",
    ),
    "coarser than claimed": (
        with_("advice.rest", codebook([0] * 4, [0] * 4) | {"blocks": [0]}),
        "are proven",
    ),
    "too many bits": (with_("advice.bits", 21), "from 0 to 20"),
    "negative bits": (with_("advice.bits", -1), "from 0 to 20"),
}
IDENTITY = {
    "another theorem": (with_("theorem", "brute_force"), "theorem is .brute_force.; expected T3"),
    "an unknown theorem": (with_("theorem", "T9"), "theorem is .T9.; expected T3"),
    "theorem in lower case": (with_("theorem", "t3"), "expected T3"),
    "another hash": (with_("weights", "0" * 64), "certificate is about other weights"),
    "hash in upper case": (with_("weights", digest(WEIGHTS).upper()), "expected a SHA-256"),
    "no hash": (with_("weights", None), "expected a SHA-256"),
}


@pytest.mark.parametrize("name", CLAIMS | NUMBERS | STRUCTURE | CODEBOOKS | IDENTITY)
def test_tampered_certificates(name):
    given, reason = (CLAIMS | NUMBERS | STRUCTURE | CODEBOOKS | IDENTITY)[name]
    found = verdict(given)
    assert found.verdict == "rejected" and found.exit_code == 1
    assert re.search(reason, found.reason), found.reason


NOT_CERTIFICATES = {
    "nothing": b"",
    "text": b"certified: 64",
    "a list": b"[]",
    "a number": b"64",
    "another format": encoded(GOOD | {"format": "xtalk.certificate/2"}),
    "a specification": encoded(spec()),
    "cut short": encoded(GOOD)[:-1],
    "two of them": encoded(GOOD) * 2,
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
}


@pytest.mark.parametrize("name", NOT_CERTIFICATES)
def test_what_is_no_certificate(name):
    found = verdict(NOT_CERTIFICATES[name])
    assert found.verdict == "not a certificate" and found.exit_code == 2 and found.reason


def without_(key: str) -> dict:
    """The specification without a key."""
    return {k: v for k, v in spec().items() if k != key}


SPECS = {
    "another n": (spec(n=4), "64 inputs; the task has 256"),
    "another task": (spec(name="min"), "are proven"),
    "a residual path": (spec(residual=True, classes=[3, 2, 1, 0]), "are proven"),
    "other classes": (spec(classes=[3, 2, 1, 0]), "are proven"),
    "more answers": (spec(answers=5), "unembed has shape"),
    "more tokens": (spec(classes=[0, 1, 2, 3, 3]), "4 entries; expected 5"),
    "pinned to other weights": (spec() | {"weights": "0" * 64}, "specification is about other weights"),
    "another theorem": (spec("brute_force"), "expected brute_force"),
    "an unknown tie rule": (spec(ties="win"), "expected lose"),
    "a tie rule that is not proven": (spec(ties="lowest"), "expected lose"),
    "an unknown activation": (spec(activation="tanh"), "expected relu or gelu"),
    "n is true": (spec(n=True), "true; expected an integer"),
    "n is huge": (spec(n=10**9), "from 1 to 64"),
    "n is zero": (spec(n=0), "from 1 to 64"),
    "an extra key beside the task": (spec() | {"tolerance": 1}, "unknown key 'tolerance'"),
    "no word on the weights": (without_("weights"), "lacks weights"),
    "an extra key": (spec(tolerance=1), "unknown key 'tolerance'"),
    "a class out of range": (spec(classes=[0, 1, 2, 4]), "from 0 to 3"),
    "no task": (without_("task"), "lacks task"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_certificate_for_another_specification(name):
    wanted, reason = SPECS[name]
    found = verdict(wanted=wanted)
    assert found.verdict == "rejected"
    assert re.search(reason, found.reason), found.reason


def test_the_activation_is_the_verifiers():
    """ReLU does not mind small weights; GELU is nearly linear there, and answers wrong."""
    given, weights = rehashed(solver(4, gain=1 / 16))
    assert verdict(given, weights=weights).verdict == "accepted"
    for other in ("gelu", "gelu_tanh"):
        assert "are proven" in verdict(given, spec(activation=other), weights).reason


def test_ties_lose():
    """A network of equal logits: right for 0, 0, 0 only if the lowest index won ties, as it does in torch."""
    given, weights = rehashed({name: (shape, [0.0] * len(v)) for name, (shape, v) in TENSORS.items()})
    given = given | {"claim": {"certified": 1, "total": 64}}
    assert "0 are proven" in verdict(given, weights=weights).reason


BYTES = {
    "bit of a weight": (flipped(len(WEIGHTS) - 3, 0), "certificate is about other weights"),
    "sign of a weight": (flipped(len(WEIGHTS) - 1, 7), "certificate is about other weights"),
    "bit of a name": (flipped(len(b"xtalk.weights/1\n") + 6, 0), "."),
    "bit of the magic": (flipped(0, 0), "not a container"),
    "truncated": (WEIGHTS[:-1], "end too early"),
    "cut in a header": (WEIGHTS[:21], "end too early"),
    "only the magic": (WEIGHTS[:16], "end too early"),
    "empty": (b"", "not a container"),
    "trailing byte": (WEIGHTS + b"\0", "1 bytes after the last tensor"),
    "another dtype": (
        WEIGHTS.replace(struct.pack("<f", 4.0), struct.pack("<d", 4.0), 1),
        "after the last|named|end too early",
    ),
    "more tensors announced": (WEIGHTS[:16] + struct.pack("<I", 8) + WEIGHTS[20:], "end too early"),
    "fewer tensors announced": (WEIGHTS[:16] + struct.pack("<I", 6) + WEIGHTS[20:], "after the last"),
}


@pytest.mark.parametrize("name", BYTES)
def test_tampered_containers(name):
    content, reason = BYTES[name]
    for given in (GOOD, GOOD | {"weights": digest(content)}):
        found = verdict(given, weights=content)
        if given is GOOD or reason != "certificate is about other weights":
            assert found.verdict == "rejected"
            assert re.search(reason, found.reason), found.reason


def unsorted() -> bytes:
    parts = {name: container({name: TENSORS[name]})[20:] for name in TENSORS}
    return WEIGHTS[:20] + b"".join(parts[name] for name in sorted(TENSORS, reverse=True))


def twice() -> bytes:
    one = container({"embed": TENSORS["embed"]})[20:]
    return b"xtalk.weights/1\n" + struct.pack("<I", 2) + one + one


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (unsorted(), "names increase"),
        (twice(), "names increase"),
        (container({k: v for k, v in TENSORS.items() if k != "b_in"}), "lack b_in"),
        (container(TENSORS | {"extra": ((1,), [0.0])}), "have extra"),
        (container(TENSORS | {"w_in": ((8, 4), TENSORS["w_in"][1])}), "w_in has shape"),
        (container(TENSORS | {"b_in": ((1, 8), TENSORS["b_in"][1])}), "b_in has shape"),
        (container(TENSORS | {"b_in": ((8, 1), TENSORS["b_in"][1])}), "b_in has shape"),
        (container(TENSORS | {"b_in": ((), [0.0])}), "b_in has shape"),
        (container(TENSORS | {"b_in": ((8,), [float("nan")] * 8)}), "not finite"),
        (container(TENSORS | {"b_in": ((8,), [float("inf")] * 8)}), "not finite"),
        (container(TENSORS | {"b_in": ((0,), [])}), "empty"),
    ],
)
def test_containers_with_their_own_hash(content, reason):
    found = verdict(GOOD | {"weights": digest(content)}, weights=content)
    assert found.verdict == "rejected" and reason in found.reason


WRONG_ON_PURPOSE = {
    "two answers swapped": altered("unembed", lambda v: v.__setitem__(slice(0, 8), v[4:8] + v[:4])),
    "two tokens swapped": altered("embed", lambda v: v.__setitem__(slice(0, 8), v[4:8] + v[:4])),
    "the MLP is dead": altered("w_out", zero),
    "a bias towards 0": altered("b_unembed", lambda v: v.__setitem__(0, 4.0)),
    "one weight negated": altered("w_out", lambda v: v.__setitem__(0, -v[0])),
    "one neuron's weight doubled": altered("w_out", lambda v: v.__setitem__(10, 2 * v[10])),
    "a threshold moved": altered("b_in", lambda v: v.__setitem__(7, 0.0)),
    "a bias moved": altered("b_out", swap) | {"b_out": ((4,), [0.0, 0.0, 1.5, 0.0])},
}


@pytest.mark.parametrize("name", WRONG_ON_PURPOSE)
def test_networks_that_are_wrong_on_purpose(name):
    """Their hash is named correctly; what they get wrong cannot be proven right."""
    tensors = WRONG_ON_PURPOSE[name]
    right, total = count_right(tensors, spec()["task"])
    given, weights = rehashed(tensors)
    assert right < total
    for claimed, expected in ((total, "rejected"), (right + 1, "rejected"), (right, "accepted")):
        given["claim"] = {"certified": claimed, "total": total}
        assert verdict(given, weights=weights).verdict == expected, (claimed, right)
    for rest in ([0] * 4, [0, 0, 1, 1]):
        given["advice"] = given["advice"] | {"rest": codebook(rest)}
        given["claim"] = {"certified": 0, "total": total}
        assert verdict(given, weights=weights).proven["certified"] <= right


def test_nesting_of_any_depth_is_only_a_rejection():
    """Somewhere the reader just manages what a message could not quote."""
    for depth in range(960, 1000):
        found = verdict(raw('"bits": 6', '"bits": ' + "[" * depth + "]" * depth))
        assert found.verdict == "rejected"


def test_the_good_one_is_accepted():
    found = verdict()
    assert (found.verdict, found.exit_code, found.reason) == ("accepted", 0, "")
    assert verdict(wanted=spec() | {"weights": digest(WEIGHTS)}).verdict == "accepted"
    assert verdict(with_("claim.certified", 0)).verdict == "accepted"

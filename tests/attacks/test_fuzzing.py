"""Random changes to certificates, specifications and weights: no crash, and nothing false is accepted."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from reference.attention_space import attention_certificate, attention_solver, attention_spec
from reference.product_space import certificate, codebook, container, encoded, solver, spec
from xtalk_check import check

WEIGHTS = container(solver(4))
GOOD = certificate(WEIGHTS, "T3", 64, rest=codebook(range(4)))
SPEC = spec()
ATTENTION_WEIGHTS = container(attention_solver(4))
ATTENTION = attention_certificate(ATTENTION_WEIGHTS, 64)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([10**40, -(10**40), "", "T3", "max", "lowest"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["columns", "blocks", "x"]), inner)
    ),
    max_leaves=5,
)


def paths(value, prefix=()):
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*prefix, key)
        yield from paths(inner, (*prefix, key))


def replaced(value, path, new):
    """A copy with another value at a place."""
    copy = json.loads(json.dumps(value))
    target = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = new
    return copy


def is_sound(verdict, claim) -> bool:
    """The network is right on all 64 sequences: only claims of at most that are true."""
    if verdict.verdict != "accepted":
        return verdict.verdict in ("rejected", "not a certificate") and verdict.reason != ""
    return claim["total"] == 64 and 0 <= claim["certified"] <= 64


@settings(max_examples=150)
@given(st.sampled_from(list(paths(GOOD))), values)
def test_changed_certificates(path, new):
    changed = replaced(GOOD, path, new)
    assert is_sound(check(encoded(changed), encoded(SPEC), WEIGHTS), changed.get("claim"))


@settings(max_examples=100)
@given(st.sampled_from(list(paths(ATTENTION))), values)
def test_changed_certificates_of_attention(path, new):
    changed = replaced(ATTENTION, path, new)
    found = check(encoded(changed), encoded(attention_spec()), ATTENTION_WEIGHTS)
    assert is_sound(found, changed.get("claim"))


@settings(max_examples=80)
@given(st.sampled_from(list(paths(SPEC))), values)
def test_changed_specifications(path, new):
    """Whatever is asked, the answer is a verdict; a task that makes the network wrong is not accepted."""
    changed = replaced(SPEC, path, new)
    if path == ("task", "n") and isinstance(new, int) and new > 8:
        return
    verdict = check(encoded(GOOD), encoded(changed), WEIGHTS)
    assert verdict.verdict != "accepted" or changed["task"] in (
        SPEC["task"],
        SPEC["task"] | {"arithmetic": "float32"},
    )


@settings(max_examples=60)
@given(st.integers(0, len(WEIGHTS) - 1), st.binary(min_size=1, max_size=6), st.booleans())
def test_changed_weights(at, noise, insert):
    changed = WEIGHTS[:at] + noise + WEIGHTS[at if insert else at + len(noise) :]
    verdict = check(encoded(GOOD), encoded(SPEC), changed)
    assert (verdict.verdict == "accepted") == (changed == WEIGHTS)


@settings(max_examples=60)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_changed_bytes_of_a_certificate(at, noise):
    text = encoded(GOOD)
    changed = text[: at % len(text)] + noise + text[at % len(text) + len(noise) :]
    verdict = check(changed, encoded(SPEC), WEIGHTS)
    assert is_sound(verdict, verdict.claim)

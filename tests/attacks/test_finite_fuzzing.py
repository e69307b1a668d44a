"""Random changes to what theorem T1 is given: no crash, and nothing false is accepted."""

from attacks.test_fuzzing import paths, replaced, values
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.finite_data import finite_certificate, finite_spec, logits, random_advice, random_problem
from reference.product_space import container, encoded
from xtalk_check import check

TENSORS, LABELS = random_problem(3), [0, 1, 2, 1, 0]
WEIGHTS, SPEC = container(TENSORS), finite_spec(TENSORS, LABELS)
FOUND = [logits(TENSORS, t, "gelu", True) for t in range(5)]
TABLES = finite_certificate(TENSORS, 0, 5, **random_advice(3), form="tables", steps=[1, 7, 64, 300])
POINTS = [[0, 900, 0, 0], [1, 900, 9, -9], [2, 30, 200, 100]]
CHARTS = finite_certificate(TENSORS, 0, 5, form="charts", bits=8, charts=POINTS, codes=[0, 1, 2, 1, 0])
EXACT = finite_certificate(TENSORS, 0, 5, form="exact")


def right(labels) -> int:
    return sum(
        all(row[label] > other for c, other in enumerate(row) if c != label)
        for row, label in zip(FOUND, labels, strict=True)
    )


def is_sound(verdict, labels) -> bool:
    if verdict.verdict != "accepted":
        return verdict.verdict in ("rejected", "not a certificate") and verdict.reason != ""
    return verdict.claim["total"] == 5 and verdict.claim["certified"] <= right(labels)


@settings(max_examples=150)
@given(
    st.sampled_from([(c, path) for c in (TABLES, CHARTS, EXACT) for path in paths(c)]),
    values | st.lists(st.lists(st.integers(-2, 2**41), max_size=4), min_size=4, max_size=5),
)
def test_changed_certificates(place, new):
    certificate, path = place
    assert is_sound(check(encoded(replaced(certificate, path, new)), encoded(SPEC), WEIGHTS), LABELS)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 2), min_size=5, max_size=5), st.integers(0, 6))
def test_any_labels_and_claims(labels, claimed):
    """Other labels make another task, of which no more is accepted than is true."""
    certificate = EXACT | {"claim": {"certified": claimed, "total": 5}}
    verdict = check(encoded(certificate), encoded(finite_spec(TENSORS, labels)), WEIGHTS)
    assert (verdict.verdict == "accepted") == (claimed <= right(labels))


@settings(max_examples=80)
@given(st.sampled_from(list(paths(SPEC))), values)
def test_changed_specifications(path, new):
    changed = replaced(SPEC, path, new)
    verdict = check(encoded(EXACT), encoded(changed), WEIGHTS)
    labels = changed["task"].get("labels") if isinstance(changed.get("task"), dict) else None
    assert verdict.verdict != "accepted" or is_sound(verdict, labels)

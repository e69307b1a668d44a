"""Strict readers: what is well-formed is read exactly, and nothing else is."""

import json
import struct
from array import array
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.product_space import MAGIC, container
from xtalk_check.errors import NotACertificate, Rejected
from xtalk_check.reading import Fields, parse, parse_weights
from xtalk_check.work import Work

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**58), 10**58) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


@given(json_values)
@settings(max_examples=40)
def test_json_of_integers_is_read_as_it_is(value):
    assert parse(json.dumps(value).encode(), "file") == value


def test_json_that_is_refused():
    for text, reason in [
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'{"b": {"a": 1, "a": 2}}', "'a' twice"),
        (b"[1.0]", "numbers are integers"),
        (b"[1e3]", "numbers are integers"),
        (b"[NaN]", "numbers are integers"),
        (b"[-Infinity]", "numbers are integers"),
        (b"[" + b"9" * 61 + b"]", "61 digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ]:
        with pytest.raises(Rejected, match=reason):
            parse(text, "file")
    assert parse(b"[" + b"9" * 60 + b"]", "file") == [10**60 - 1]
    for text in (b"", b"{", b"{'a': 1}", b"\xff\xfe", b"[1,]", b"[01]", b"1 2"):
        with pytest.raises(NotACertificate, match="not JSON"):
            parse(text, "file")


def test_fields_of_the_wrong_kind_are_refused():
    members = {
        "i": 3,
        "yes": True,
        "text": "x",
        "list": [1, 2],
        "none": None,
        "table": [[1], [2, 3]],
        "bad": [1, True],
    }
    for read, reason in [
        (lambda f: f.integer("yes", 0, 9), "true; expected an integer"),
        (lambda f: f.integer("text", 0, 9), '"x"; expected an integer'),
        (lambda f: f.integer("i", 0, 2), "from 0 to 2"),
        (lambda f: f.integer("i", 4, 9), "from 4 to 9"),
        (lambda f: f.integer("absent", 0, 9), "lacks absent"),
        (lambda f: f.integers("i", 0, 9), "expected a list"),
        (lambda f: f.integers("bad", 0, 9), "true; expected an integer"),
        (lambda f: f.integers("list", 0, 9, 3), "2 entries; expected 3"),
        (lambda f: f.table("table", 0, 9, 1), "2 entries; expected 1"),
        (lambda f: f.table("list", 0, 9), "expected a list"),
        (lambda f: f.flag("i"), "expected true or false"),
        (lambda f: f.choice("text", "y", "z"), "expected y or z"),
        (lambda f: f.choice("i", "y"), "expected y"),
        (lambda f: f.digest("text"), "expected a SHA-256"),
        (lambda f: f.fields("list"), "not an object"),
        (lambda f: f.done(), "unknown key 'bad'"),
    ]:
        with pytest.raises(Rejected, match=reason):
            read(Fields(dict(members), "certificate"))


def test_what_may_be_null_may_not_be_missing():
    fields = Fields({"a": None, "b": 0}, "file")
    assert fields.null("a") and not fields.null("b") and not fields.null("c") and not fields.null("a")
    with pytest.raises(Rejected, match="lacks a"):
        fields.integer("a", 0, 1)


def test_fields_are_read_once_and_counted():
    work = Work()
    fields = Fields({"a": 1, "b": [1, 2], "c": [[3], [4, 5]], "d": None, "e": {"f": 6}}, "certificate", work)
    assert fields.integer("a", 1, 1) == 1 and fields.integers("b", 1, 2, 2) == [1, 2]
    assert fields.table("c", 0, 9) == [[3], [4, 5]] and fields.null("d") and not fields.null("e")
    assert fields.fields("e").integer("f", 6, 6) == 6
    fields.done()
    assert work.reads == 7
    with pytest.raises(Rejected, match="lacks a"):
        fields.integer("a", 1, 1)


names = st.sampled_from(["a", "a.b", "a_b", "ab", "b", "b0", "zz.9"])
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.dictionaries(names, st.lists(float32, min_size=1, max_size=4), max_size=3))
@settings(max_examples=30)
def test_containers_are_read_exactly(tensors):
    weights = parse_weights(container({name: ((len(values),), values) for name, values in tensors.items()}))
    for name, values in tensors.items():
        assert list(weights.values(name, None)[1]) == values
        assert [float(x) for x in weights.vector(name, None)] == values
    weights.done()


def tensor(name: bytes, shape: tuple[int, ...], values: list[float]) -> bytes:
    head = struct.pack("<H", len(name)) + name + struct.pack("<B", len(shape))
    return head + struct.pack(f"<{len(shape)}I", *shape) + array("f", values).tobytes()


def test_containers_that_are_refused():
    one, two = tensor(b"a", (1,), [1.0]), tensor(b"b", (2,), [1.0, 2.0])
    for content, reason in [
        (b"", "not a container"),
        (b"PK" + MAGIC, "not a container"),
        (MAGIC, "end too early"),
        (MAGIC + struct.pack("<I", 2) + one, "end too early"),
        (MAGIC + struct.pack("<I", 1) + two[:-1], "end too early"),
        (MAGIC + struct.pack("<I", 1) + one + b"\0", "1 bytes after the last"),
        (MAGIC + struct.pack("<I", 2) + two + one, "'a' after 'b'"),
        (MAGIC + struct.pack("<I", 2) + one + one, "'a' after 'a'"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"A", (1,), [1.0]), "named 'A'"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"", (1,), [1.0]), "named ''"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"a\n", (1,), [1.0]), "named"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"a", (1,), [nan]), "not finite"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"a", (1,), [inf]), "not finite"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"a", (2**32 - 1, 2**32 - 1), []), "end too early"),
        (MAGIC + struct.pack("<I", 1) + tensor(b"a", (0, 3), []), "empty"),
        (MAGIC + struct.pack("<I", 65) + one, "65 tensors"),
    ]:
        with pytest.raises(Rejected, match=reason):
            parse_weights(content)


def test_shapes_and_names_are_those_asked_for():
    weights = parse_weights(container({"a": ((2, 3), [1.0] * 6), "b": ((1,), [1.0])}))
    assert weights.matrix("a", 2, None).ncols() == 3
    for shape in ((3, 2), (2, 2), (None, 2), (2, 3, 1), (2,), (None,)):
        with pytest.raises(Rejected, match="shape"):
            weights.values("a", *shape)
    with pytest.raises(Rejected, match="shape"):
        weights.vector("a", 6)
    with pytest.raises(Rejected, match="lack c"):
        weights.vector("c", 1)
    with pytest.raises(Rejected, match="have b"):
        weights.done()


@settings(max_examples=60)
@given(st.binary(max_size=200), st.integers(0, 150))
def test_no_bytes_crash_the_readers(noise, cut):
    good = container({"a": ((2,), [1.0, 2.0]), "b": ((1, 1), [0.5])})
    for content in (noise, MAGIC + noise, good[:cut] + noise, good[: len(good) - cut] + noise):
        for reader in (parse_weights, lambda text: parse(text, "file")):
            try:
                reader(content)
            except (Rejected, NotACertificate) as error:
                assert str(error)


def test_what_is_nested_too_deeply_to_be_quoted():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Rejected, match="has a list; expected an integer"):
        Fields({"i": deep}, "file").integer("i", 0, 9)

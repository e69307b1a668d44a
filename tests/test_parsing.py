"""JSON and YAML that others wrote: whatever is wrong is a ValueError, soon and in little memory."""

import time
import tracemalloc
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from xtalk.parsing import LONGEST_YAML, parsed_json, parsed_yaml


def laughs(line: str) -> str:
    """Each line nine times the one before, nine times over."""
    first = "a0: &a0 {k: 1}\n"
    return first + "".join(
        f"a{n}: &a{n} " + line.format(", ".join([f"*a{n - 1}"] * 9)) + "\n" for n in range(1, 10)
    )


BAD = {
    "laughs": laughs("[{}]"),
    "merged laughs": laughs("{{<<: [{}]}}"),
    "itself": "a: &a [*a]",
    "itself, merged": "a: &a\n  <<: *a",
    "deep": "[" * 100_000,
    "deep mapping": "{a: " * 50_000,
    "long": "a: 1\n" * (LONGEST_YAML // 5 + 1),
    "long number": "a: " + "1" * 5000,
    "date": "a: 2001-13-45",
    "binary": "a: !!binary é",
    "object": "a: !!python/object/apply:os.system [ls]",
    "key": "? [a]\n: b",
    "control": "a: \x01",
    "alias": "a: *b",
}


@pytest.mark.parametrize("name", BAD)
def test_yaml_that_is_none_or_too_large(name: str):
    begun = time.process_time()
    with pytest.raises(ValueError) as caught:
        parsed_yaml(BAD[name])
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 10
    tracemalloc.start()  # after the time was taken: it slows deep recursion down
    with suppress(ValueError):
        parsed_yaml(BAD[name])
    assert tracemalloc.get_traced_memory()[1] < 300_000_000
    tracemalloc.stop()


def test_references_merges_and_tuples_are_read():
    text = "a: &a {x: 1}\nb: {<<: *a, y: [*a]}\nc: !!python/tuple [1, 2]"
    assert parsed_yaml(text) == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}]}, "c": [1, 2]}
    assert parsed_yaml("") is None


def test_deep_json():
    assert parsed_json("[1, {}]") == [1, {}]
    for text in ("[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{"):
        with pytest.raises(ValueError):
            parsed_json(text)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=30)
@given(plain)
def test_what_yaml_writes_comes_back(value):
    assert parsed_yaml(yaml.safe_dump(value)) == value


@settings(max_examples=60)
@given(st.text(alphabet="ab:-[]{}&*!<>|?#'\"%@`, \n\t1.", max_size=60))
def test_no_text_is_another_error(text: str):
    for parse in (parsed_yaml, parsed_json):
        with suppress(ValueError):
            parse(text)

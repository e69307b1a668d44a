"""The page on fields names every field, and its worked example is right."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from attacks.test_budget import HONEST
from xtalk_check.errors import Rejected
from xtalk_check.reading import parse_weights

from xtalk.proofs.t1.digits import digits

FIELDS = (Path(__file__).parents[2] / "docs" / "proofs" / "fields.md").read_text()
NAMED = set(re.findall(r"`([a-z_.]+)`", FIELDS))


def keys(value) -> set[str]:
    """Every key in a JSON value."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()


@pytest.mark.parametrize("name", HONEST)
def test_every_field_and_tensor_is_on_the_page(name):
    given, wanted, weights = HONEST[name]
    found = keys(given) | keys(wanted) | set(parse_weights(weights).tensors)
    assert found - {"columns", "blocks"} <= NAMED, found - NAMED
    assert '`{"columns": ..., "blocks": ...}`' in FIELDS


def test_the_worked_example(tmp_path, monkeypatch):
    """Run as it stands on the page, it asks for the images that the prover certifies."""
    (script,) = re.findall(r"```python\n(.*?)```", FIELDS, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    spec, data = json.loads((tmp_path / "mine.spec.json").read_text()), digits(0)
    assert spec["task"]["labels"] == data.test_labels_T.tolist()
    assert spec["task"]["data"] == sha256(data.test_TI.numpy().tobytes()).hexdigest()


def test_the_container_is_as_the_page_says():
    assert "`xtalk.weights/1` and a line feed" in FIELDS and "at most 64" in FIELDS
    with pytest.raises(Rejected, match="65 tensors"):
        parse_weights(b"xtalk.weights/1\n" + (65).to_bytes(4, "little"))

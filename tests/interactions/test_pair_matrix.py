import dataclasses

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.interactions.pairs import PairInteractions
from xtalk.selftest.cases import ACTIVATIONS, L, contributions, random_case


@pytest.fixture
def matrix() -> PairMatrix:
    pairs = PairInteractions(L, ("blocks.0", "blocks.3"))
    for number in range(3):
        first, second = (contributions(random_case(phi, False, number)) for phi in ACTIVATIONS[:2])
        pairs.add({"blocks.0": first, "blocks.3": second}, np.full(4, number))
    return dataclasses.replace(pairs.result(top=3), source="abc")


def test_a_saved_matrix_is_the_same(matrix, tmp_path):
    path = tmp_path / "a.safetensors"
    matrix.save(path)
    loaded = PairMatrix.load(path, "abc")
    for field in dataclasses.fields(PairMatrix):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(matrix, field.name))


def test_a_matrix_of_another_crosscoder_is_refused(matrix, tmp_path):
    path = tmp_path / "a.safetensors"
    matrix.save(path)
    with pytest.raises(XtalkError, match="of other weights"):
        PairMatrix.load(path, "abd")


def damage(name, change):
    return lambda tensors, record: (tensors | {name: change(tensors[name].copy())}, record)


def put(value):
    def change(array):
        array.flat[1] = value
        return array

    return change


DAMAGES = {
    "NaN": damage("sums", put(np.nan)),
    "no pair matrix": lambda tensors, record: (tensors, {"xtalk.pairs/9": record["xtalk.pairs/2"]}),
    "is no pair matrix": lambda tensors, record: (tensors, {"xtalk.pairs/2": '{"parts": ["a", "b"]}'}),
    "is no pair matrix (": lambda tensors, record: (tensors, {"xtalk.pairs/2": "[" * 9}),
    "is no pair matrix (x": lambda tensors, record: (
        tensors,
        {"xtalk.pairs/2": record["xtalk.pairs/2"].replace('"a"', "1")},
    ),
    "no pair matrix (": lambda tensors, record: ({"M": tensors["sums"]}, record),
    "do not fit together": damage("column", put(L)),
    "fit together; measure": damage("sums", lambda array: array[:-1]),
    "its arrays do not fit": damage("start", put(10**6)),
    "damaged: its arrays do not fit": damage("start", lambda array: array + 1),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_files_are_refused(message, matrix, tmp_path):
    path = tmp_path / "a.safetensors"
    matrix.save(path)
    record = {"xtalk.pairs/2": '{"parts": ["a", "b"], "tokens": 9, "documents": 3, "source": ""}'}
    tensors, changed = DAMAGES[message](load_file(path), record)
    save_file(tensors, path, changed)
    with pytest.raises(XtalkError, match=message.replace("(", "\\(")):
        PairMatrix.load(path)


def test_the_file_has_one_key_of_metadata(matrix, tmp_path):
    """Several would be written in an order that changes from one process to the next."""
    matrix.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert list(file.metadata()) == ["xtalk.pairs/2"]


def test_what_is_no_safetensors_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(XtalkError, match="cannot be read"):
        PairMatrix.load(tmp_path / "a.safetensors")
    with pytest.raises(XtalkError, match="no pair matrix"):
        PairMatrix.load(tmp_path / "b.safetensors")

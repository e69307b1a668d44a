"""The package as a whole."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import xtalk


def test_version_is_that_of_the_installed_distribution():
    assert xtalk.__version__ == version("xtalk")


def test_everything_public_can_be_reached():
    for name in xtalk.__all__:
        assert getattr(xtalk, name) is not None


def test_every_folder_with_modules_is_a_package():
    folders = {file.parent for file in Path(xtalk.__file__).parent.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_annotations_are_checked_while_testing():
    from xtalk.models.mlp import MlpWeights

    vector, matrix = torch.zeros(3), torch.zeros(3, 3)
    with pytest.raises(Exception, match="W_in"):
        MlpWeights(vector, vector, matrix, vector, None)

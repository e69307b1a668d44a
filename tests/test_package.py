"""The package as a whole."""

from importlib.metadata import version

import xtalk


def test_version_is_that_of_the_installed_distribution():
    assert xtalk.__version__ == version("xtalk")


def test_everything_public_can_be_reached():
    for name in xtalk.__all__:
        assert getattr(xtalk, name) is not None

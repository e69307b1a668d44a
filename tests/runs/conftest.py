"""Runs in these tests calibrate on few tokens: the real number takes most of their time."""

import pytest

from xtalk.training import config


@pytest.fixture(autouse=True, scope="module")
def _short_calibration():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_CALIBRATION_TOKENS", 512)
        yield

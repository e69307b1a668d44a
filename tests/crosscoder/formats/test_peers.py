"""Outputs equal what the peers' own forward gave for their own files; see the scripts in peers/."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xtalk.crosscoder.crosscoder import Crosscoder

FILES = Path(os.environ.get("XTALK_PEER_FILES", Path(__file__).parent / "files"))
CASES = sorted(path for path in FILES.rglob("expected.safetensors"))


@pytest.mark.parametrize("expected", CASES, ids=lambda path: str(path.parent.relative_to(FILES)))
def test_outputs_are_the_peers_own(expected: Path):
    folder = expected.parent
    cc, values = Crosscoder.load(folder), load_file(expected)
    tolerance = {"atol": 1e-5, "rtol": 1e-5}
    y = cc(values["x"])
    assert torch.allclose(y, values["y"], **tolerance), float((y - values["y"]).abs().max())
    if "f" in values:
        f = cc.encode(values["x"])
        assert torch.allclose(f, values["f"], **tolerance)
        assert torch.equal(f > 0, values["f"] > 0)


def test_there_are_cases():
    assert len(CASES) >= 25

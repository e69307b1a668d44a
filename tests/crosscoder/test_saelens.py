"""Registration with SAELens; `make test-peers` reads crosscoders with SAELens itself."""

import json
import sys
from pathlib import Path

import pytest
from crosscoder.small import small_crosscoder

from xtalk.crosscoder import saelens
from xtalk.crosscoder.saving import CFG
from xtalk.errors import XtalkError


def test_without_saelens_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    saelens.register.cache_clear()
    with pytest.raises(XtalkError, match="sae_lens is not installed; install SAELens: pip install sae-lens"):
        saelens.register()


def test_what_saelens_looks_for_is_written(tmp_path: Path):
    small_crosscoder().save(tmp_path)
    cfg = json.loads((tmp_path / CFG).read_text())
    assert (cfg["architecture"], cfg["dtype"]) == (saelens.ARCHITECTURE, "float32")

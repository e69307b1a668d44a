"""What interactions have no meaning for is refused before anything is read."""

from pathlib import Path

import pytest

from xtalk.crosscoder.config import unmeasured
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.models.language_model import load_model
from xtalk.reading.explained import Encoded

FILES = Path(__file__).parent / "formats" / "files"


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("saelens/transcoder", "from blocks.1.ln2.hook_normalized to blocks.1.hook_mlp_out does not decode"),
        ("llamascopium/crosscoder_jumprelu", "have gates of their own"),
        ("crosscoder_learning/batchtopk_decoupled", "have gates of their own"),
    ],
)
def test_dictionaries_without_a_measure(case: str, match: str):
    cc = Crosscoder.load(FILES / case)
    assert match in (unmeasured(cc.config) or "")
    with pytest.raises(XtalkError, match=match):
        Encoded(load_model("embedded"), cc, ())


def test_dictionaries_with_one():
    for case in ("saelens/gated", "paper/topk", "llamascopium/sae_topk"):
        assert unmeasured(Crosscoder.load(FILES / case).config) is None

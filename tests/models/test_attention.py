"""Attention and norms as plain tensors put out what the model's own modules do."""

import pytest
import torch
from reference.tiny_models import BLOCKS, KINDS, tiny_model, tiny_tokens

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint

BILINEAR = [kind for kind in KINDS if kind != "qwen3"]


@pytest.mark.parametrize("kind", BILINEAR)
def test_attention_is_the_models(kind):
    model, tokens = tiny_model(kind), tiny_tokens(2, 9)
    for block in range(BLOCKS):
        sites = [Hookpoint(block, site) for site in ("ln1", "resid_pre", "resid_mid")]
        n, before, after = model.capture(tokens, sites).unbind(2)
        attention = model.attention_weights(block)
        for b in range(len(tokens)):
            torch.testing.assert_close(attention(n[b]), after[b] - before[b], rtol=1e-4, atol=1e-5)
            pattern = attention.pattern(n[b])
            torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:2]))


def test_scores_that_are_not_bilinear_are_refused():
    with pytest.raises(XtalkError, match="normalises queries and keys"):
        tiny_model("qwen3").attention_weights(0)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_the_models(kind):
    model, tokens = tiny_model(kind), tiny_tokens()
    for site in ("ln1", "ln2"):
        norm, source = model.norm_weights(Hookpoint(1, site))
        x, n = model.capture(tokens, [source, Hookpoint(1, site)]).unbind(2)
        torch.testing.assert_close(norm(x), n, rtol=1e-4, atol=1e-5)
    with pytest.raises(XtalkError, match="expected ln1 or ln2"):
        model.norm_weights(Hookpoint(1, "resid_mid"))

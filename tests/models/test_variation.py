"""Hookpoints at which nothing varies are refused."""

import pytest
import torch
from reference.tiny_models import tiny_model, tiny_tokens

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.variation import check_variation


@pytest.mark.parametrize(
    ("kind", "path", "bias"),
    [("llama", "model.layers.1.mlp.down_proj", False), ("gpt2", "transformer.h.1.mlp.c_proj", True)],
)
def test_an_mlp_that_writes_nothing_or_a_constant(kind: str, path: str, bias: bool):
    model = tiny_model(kind)
    check_variation(model, tiny_tokens(), model.hookpoints())
    model.hf.get_submodule(path).weight.zero_()
    if not bias:
        model.hf.get_submodule(path).bias.zero_()
    with pytest.raises(XtalkError, match=r"MLP of block 1 puts out the same.*--hookpoints.*blocks\.1\.ln2"):
        check_variation(model, tiny_tokens(), model.hookpoints())
    others = [point for point in model.hookpoints() if point != Hookpoint(1, "ln2")]
    check_variation(model, tiny_tokens(), others)


def test_activations_that_are_the_same_at_every_token():
    model = tiny_model("gpt2")
    model.hf.transformer.h[2].ln_1.weight.zero_()
    with pytest.raises(XtalkError, match=r"the activations at blocks\.2\.ln1 are the same"):
        check_variation(model, tiny_tokens(), [Hookpoint(2, "ln2"), Hookpoint(2, "ln1")])


def test_a_large_constant_beside_a_small_variation_is_none():
    model = tiny_model("gpt2")
    model.hf.transformer.h[1].mlp.c_proj.bias.fill_(100.0)
    check_variation(model, torch.arange(14).view(2, 7), model.hookpoints())

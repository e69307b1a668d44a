"""The difference of two models in the place of one."""

import pytest
import torch
from evaluation.held_out import model_with_tokenizer
from reference.tiny_models import tiny_model, tiny_tokenizer, tiny_tokens

from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.difference import ModelDifference, check_same_shape


def test_it_captures_what_the_model_has_beyond_its_base():
    model, base = tiny_model("gpt_neo"), tiny_model("gpt_neo")
    for parameter in model.hf.parameters():
        parameter.data *= 1.1
    difference, points = ModelDifference(model, base), model.hookpoints()
    tokens = tiny_tokens(2, 5)
    expected = model.capture(tokens, points) - base.capture(tokens, points)
    torch.testing.assert_close(difference.capture(tokens, points), expected)
    assert expected.abs().max() > 0.01
    assert isinstance(difference, CapturingModel)


def test_its_hash_tells_model_and_base_apart():
    one, other = tiny_model("gpt_neo"), tiny_model("gpt_neo")
    other.weights_hash = "another"
    hashes = {ModelDifference(a, b).weights_hash for a in (one, other) for b in (one, other)}
    assert len(hashes) == 4


def test_models_of_other_shapes_and_tokenizers_are_refused():
    with pytest.raises(XtalkError, match="differ in shape"):
        ModelDifference(tiny_model("gpt_neo"), tiny_model("llama"))
    model, base = model_with_tokenizer(), model_with_tokenizer()
    check_same_shape(model, base)
    base.tokenizer = tiny_tokenizer()
    base.tokenizer.add_tokens(["another"])
    with pytest.raises(XtalkError, match="different tokenizers"):
        check_same_shape(model, base)

"""The language model inside a multimodal checkpoint is loaded by itself."""

import pytest
import torch
from models.folders import refusal, rewrite
from reference.tiny_models import tiny_config, tiny_hf, tiny_tokenizer, tiny_tokens
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from xtalk.models.language_model import load_model

VISION = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip


@pytest.fixture
def multimodal(tmp_path):
    config = Gemma3Config(text_config=tiny_config("gemma3_text").to_dict(), vision_config=VISION,
                          mm_tokens_per_image=1)  # fmt: skip
    whole = Gemma3ForConditionalGeneration(config)
    whole.model.language_model.load_state_dict(tiny_hf("gemma3_text").model.state_dict())
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_it_is_the_language_model(multimodal):
    model = load_model(multimodal)
    assert model.family == "Gemma3" and model.n_blocks == 3
    with torch.no_grad():
        alone = tiny_hf("gemma3_text")(tiny_tokens()).logits
    torch.testing.assert_close(model.logits(tiny_tokens()), alone)
    assert not any("vision" in name for name, _ in model.hf.named_parameters())


def test_its_tensors_must_be_there_and_used(multimodal):
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    rewrite(multimodal, lambda tensors: {n: t for n, t in tensors.items() if n != name})
    assert "lack 1 tensors" in refusal(multimodal)


def test_a_stranger_among_its_tensors(multimodal):
    name = "language_model.model.layers.1.mlp.up_proj.bias"
    rewrite(multimodal, lambda tensors: tensors | {name: torch.zeros(40)})
    assert "1 tensors without a place" in refusal(multimodal)

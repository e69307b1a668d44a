"""A model is compared in numbers with its weights as they are read."""

import re
from dataclasses import replace

import pytest
import torch
from models.folders import refusal, rewrite
from reference.tiny_models import KINDS, save_tiny
from transformers.models.llama.modeling_llama import LlamaAttention

from xtalk.models import language_model
from xtalk.models.activation_functions import GELU, SILU
from xtalk.models.family import Family, Layer
from xtalk.models.language_model import load_model

WRONG = {
    "gate and value exchanged": ("llama", {"w_gate": Layer("mlp.up_proj"), "w_in": Layer("mlp.gate_proj")}),
    "the halves of a fused layer exchanged": (
        "phi3",
        {"w_gate": Layer("mlp.gate_up_proj", 1), "w_in": Layer("mlp.gate_up_proj", 0)},
    ),
    "another activation function": ("llama", {"activation": replace(SILU, function=GELU)}),
    "a norm after the MLP left out": ("gemma2", {"mlp_norm": None}),
    "a norm after the MLP that is another": ("glm4", {"mlp_norm": "post_self_attn_layernorm"}),
    "a factor of what is added left out": ("granite", {"multiplier": 1.0}),
    "a norm of another place": ("qwen2", {"norm1": "post_attention_layernorm"}),
    "parallel read as sequential": ("gpt_neox", {"parallel": False}),
    "sequential read as parallel": ("gpt2", {"parallel": True}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_family_that_is_read_wrongly_is_refused(case, tmp_path, monkeypatch):
    kind, changes = WRONG[case]
    save_tiny(tmp_path, kind)
    load_model(tmp_path)
    found = language_model.find_family
    monkeypatch.setattr(language_model, "find_family", lambda hf: replace(found(hf), **changes))
    message = refusal(tmp_path)
    assert re.search(r"^the (MLP|norm at ln\d) of block 0 of the model", message) and "is off by" in message


@pytest.mark.parametrize("change", [{"eps": 1e-2}, {"centred": True}])
def test_another_norm_is_refused(change, tmp_path, monkeypatch):
    save_tiny(tmp_path, "llama")
    read = Family.norm_weights
    monkeypatch.setattr(Family, "norm_weights", lambda *args: replace(read(*args), **change))
    assert "the norm at ln1 of block 0" in refusal(tmp_path)


def test_a_model_that_sees_the_tokens_after_is_refused(tmp_path, monkeypatch):
    save_tiny(tmp_path, "llama")
    monkeypatch.setattr("transformers.models.llama.modeling_llama.create_causal_mask", lambda **_: None)
    made = LlamaAttention.__init__

    def both_ways(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.is_causal = False

    monkeypatch.setattr(LlamaAttention, "__init__", both_ways)
    assert "change by" in (message := refusal(tmp_path)) and "expected a causal model" in message


def test_activations_that_are_not_finite_are_refused(tmp_path):
    save_tiny(tmp_path, "gpt_neo")

    def spoilt(tensors):
        tensors["transformer.h.1.mlp.c_proj.weight"][3] = 3e38  # finite, but its products are not
        return tensors

    rewrite(tmp_path, spoilt)
    assert "block 1 of the model" in (message := refusal(tmp_path)) and "at resid_post" in message


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bloom"])  # which normalises embeddings
def test_large_activations_of_some_tokens_are_no_mismatch(kind, tmp_path):
    save_tiny(tmp_path, kind)

    def huge(tensors):
        name = next(n for n in tensors if re.search("wte|embed_in|embed_tokens|word_embeddings", n))
        tensors[name][::3] *= 1e4
        return tensors

    rewrite(tmp_path, huge)
    model = load_model(tmp_path)
    assert float(model.capture(torch.arange(4)[None], model.hookpoints()).abs().max()) > 1000

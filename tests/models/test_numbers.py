"""A model is compared in numbers with its weights as they are read."""

from dataclasses import replace

import pytest
import torch
from models.folders import refusal, rewrite
from reference.tiny_models import KINDS, save_tiny

from xtalk.models import families
from xtalk.models.activation_functions import GELU, SILU
from xtalk.models.language_model import load_model

WRONG = {
    "a norm whose weights count from 1 read as they are": ("gemma", {"norm_offset": 0.0}, "norm at ln1"),
    "gate and value exchanged": ("llama", {"w_gate": "mlp.up_proj", "w_in": "mlp.gate_proj"}, "MLP"),
    "a norm of another place": ("qwen2", {"norm2": "input_layernorm"}, "norm at ln2"),
    "parallel read as sequential": ("gpt_neox", {"parallel": lambda config: False}, "norm at ln2"),
    "sequential read as parallel": ("gpt2", {"parallel": lambda config: True}, "norm at ln2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_family_that_is_read_wrongly_is_refused(case, tmp_path, monkeypatch):
    kind, changes, part = WRONG[case]
    save_tiny(tmp_path, kind)
    load_model(tmp_path)
    monkeypatch.setitem(families.FAMILIES, kind, replace(families.FAMILIES[kind], **changes))
    message = refusal(tmp_path)
    assert f"the {part}" in message and "of block 0" in message and "is off by" in message


def test_another_activation_function_is_refused(tmp_path, monkeypatch):
    save_tiny(tmp_path, "llama")
    monkeypatch.setattr("xtalk.models.family.activation_function", lambda name: replace(SILU, function=GELU))
    assert "the MLP of block 0" in refusal(tmp_path)


def test_another_epsilon_is_refused(tmp_path, monkeypatch):
    save_tiny(tmp_path, "llama")
    read = families.Family.norm_weights
    monkeypatch.setattr(families.Family, "norm_weights", lambda *args: replace(read(*args), eps=1e-2))
    assert "the norm at ln1 of block 0" in refusal(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 3])
def test_activations_that_are_not_finite_are_refused(value, place, tmp_path):
    save_tiny(tmp_path, "gpt_neo")

    def spoilt(tensors):
        tensors["transformer.h.1.mlp.c_proj.bias"][place] = value
        return tensors

    rewrite(tmp_path, spoilt)
    assert "block 1 of the model" in (message := refusal(tmp_path)) and "at resid_post" in message


@pytest.mark.parametrize("kind", KINDS)
def test_large_activations_of_some_tokens_are_no_mismatch(kind, tmp_path):
    save_tiny(tmp_path, kind)

    def huge(tensors):
        name = next(n for n in tensors if "wte" in n or "embed_in" in n or "embed_tokens" in n)
        tensors[name][::3] *= 1e4
        return tensors

    rewrite(tmp_path, huge)
    model = load_model(tmp_path)
    assert float(model.capture(torch.arange(4)[None], model.hookpoints()).abs().max()) > 1000

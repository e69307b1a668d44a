"""What model files hold is what the model uses, or the model is refused."""

import json

import pytest
import torch
from models.folders import edit_config, refusal, rewrite
from reference.tiny_models import VOCABULARY, save_tiny, tiny_hf, tiny_tokens
from safetensors.torch import save_file

from xtalk.models import checkpoint
from xtalk.models.language_model import load_model

INV_FREQ = "model.layers.{}.self_attn.rotary_emb.inv_freq"


@pytest.fixture
def llama(tmp_path):
    save_tiny(tmp_path / "llama", "llama")
    return tmp_path / "llama"


def test_biases_that_the_configuration_does_not_have(llama):
    edit_config(llama, attention_bias=False)
    message = refusal(llama)
    assert "12 tensors without a place" in message
    assert "'model.layers.0.self_attn.k_proj.bias'" in message


def test_more_blocks_than_the_configuration_has(folder):
    types = {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]}
    edit_config(folder, num_layers=2, **types)
    assert "'transformer.h.2.attn.attention.k_proj.weight'" in refusal(folder)


def test_tensors_of_an_adapter_among_the_weights(folder):
    rewrite(folder, lambda tensors: tensors | {"transformer.h.0.mlp.c_fc.lora_A.weight": torch.zeros(2, 24)})
    assert "1 tensors without a place" in refusal(folder)


def test_an_adapter_beside_the_weights(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    save_file({"base_model.model.x": torch.zeros(2)}, folder / "adapter_model.safetensors")
    assert "holds a model and an adapter" in refusal(folder)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_a_configuration_of_quantised_weights(folder, method):
    edit_config(folder, quantization_config={"quant_method": method, "load_in_8bit": True})
    assert f"are quantised ({method})" in refusal(folder)


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"), (torch.int8, "I8")]
)
def test_eight_bit_weights_with_or_without_scales(llama, dtype, name):
    def narrow(tensors, scales):
        wide = {n: w for n, w in tensors.items() if not n.endswith("proj.weight")}
        slim = {n: w.to(dtype) for n, w in tensors.items() if n.endswith("proj.weight")}
        return wide | slim | ({n + "_scale": torch.ones(1) for n in slim} if scales else {})

    rewrite(llama, lambda tensors: narrow(tensors, scales=False))
    assert f"stored as {name}" in refusal(llama)
    rewrite(llama, lambda tensors: narrow(tensors, scales=True))
    assert "weight_scale" in refusal(llama)


def test_a_head_beside_tied_embeddings_is_used_as_it_is(folder):
    head = torch.randn(VOCABULARY, 24)
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": head})
    model = load_model(folder)
    with torch.no_grad():
        x = model.hf.base_model(tiny_tokens())[0]
    torch.testing.assert_close(model.logits(tiny_tokens()), x @ head.T)


def test_a_tensor_that_is_not_used_as_it_is_stored(folder, monkeypatch):
    made = checkpoint.AutoModelForCausalLM.from_pretrained

    def from_pretrained(*args, **kwargs):
        model, report = made(*args, **kwargs)
        model.transformer.h[1].mlp.c_proj.weight.data[-1, 0] += 1
        return model, report

    monkeypatch.setattr(checkpoint.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    assert "does not use 'transformer.h.1.mlp.c_proj.weight'" in refusal(folder)


def test_masks_of_old_files(folder):
    mask = torch.ones(1, 1, 19, 19).tril()
    name = "transformer.h.{}.attn.attention.bias"
    local = mask - torch.tril(mask, -3)
    old = {name.format(0): mask, name.format(1): local.byte(), name.format(2): local}
    rewrite(
        folder,
        lambda tensors: tensors | old | {"transformer.h.0.attn.attention.masked_bias": torch.tensor(-1e9)},
    )
    load_model(folder)
    rewrite(folder, lambda tensors: tensors | {name.format(1): mask})
    assert "attention mask 'transformer.h.1.attn.attention.bias'" in refusal(folder)


def test_rotary_frequencies_of_old_files(llama):
    own = tiny_hf("llama").model.rotary_emb.inv_freq
    rewrite(llama, lambda tensors: tensors | {INV_FREQ.format(i): own.half() for i in range(3)})
    load_model(llama)
    edit_config(llama, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    assert "rotary frequencies" in refusal(llama)


def test_files_without_the_name_of_the_base_model(llama):
    whole = load_model(llama)
    rewrite(llama, lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    assert load_model(llama).weights_hash == whole.weights_hash


def test_models_of_the_hub_are_checked_too(folder, tmp_path, monkeypatch):
    home = tmp_path / "hub/models--someone--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text("0" * 40)
    (home / "snapshots").mkdir()
    folder.rename(snapshot := home / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_model("someone/tiny").weights_hash == load_model(snapshot).weights_hash
    rewrite(snapshot, lambda tensors: {n: t.to(torch.float8_e4m3fn) for n, t in tensors.items()})
    assert "stored as F8_E4M3" in refusal("someone/tiny")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["model.norm.weight", "model.layers.1.self_attn.q_proj.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(value, tensor, tmp_path):
    """A final norm, and queries that the kernel masks: no block's activations show them."""
    save_tiny(tmp_path, "llama")

    def spoilt(tensors):
        tensors[tensor].view(-1)[5] = value
        return tensors

    rewrite(tmp_path, spoilt)
    message = refusal(tmp_path)
    assert f"NaN or infinity in '{tensor}', at 1 of its " in message and "expected finite ones" in message

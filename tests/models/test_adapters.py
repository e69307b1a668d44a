"""Adapters merged on load: every layer by hand, and what is not plain LoRA refused by name."""

import json
import math

import pytest
import torch
from models.folders import refusal
from reference.tiny_models import save_tiny, tiny_hf, tiny_tokenizer, tiny_tokens
from safetensors.torch import load_file, save_file

from xtalk.errors import XtalkError
from xtalk.models.adapters import AdapterConfig
from xtalk.models.language_model import load_model

KINDS = {  # layers of two kinds: nn.Linear, and GPT-2's, which stores the transpose
    "llama": ("model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj", "model.embed_tokens"),
    "gpt2": ("transformer.h.0.attn.c_attn", "transformer.h.2.mlp.c_proj", "transformer.wte"),
}
RANKS = (2, 3, 2)
CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 2,
    "lora_alpha": 6,
    "rank_pattern": {"mlp.c_proj": 3, "down_proj": 3},
    "alpha_pattern": {"h.2.mlp.c_proj": 5, "down_proj": 5},
}


def adapter(tmp_path, kind="llama", **changes):
    """A base model, a LoRA of it in peft's files, and the state that the merged model must have."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    save_tiny(base, kind)
    folder.mkdir()
    config = CONFIG | {"base_model_name_or_path": str(base)} | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))
    state = {name: tensor.clone() for name, tensor in tiny_hf(kind).state_dict().items()}
    tensors, generator = {}, torch.Generator().manual_seed(0)
    for layer, rank, alpha in zip(KINDS[kind], RANKS, (6, 5, 6), strict=True):
        weight = state[f"{layer}.weight"]
        stored_as_transpose = kind == "gpt2" or "emb" in layer
        rows, columns = reversed(weight.shape) if stored_as_transpose else weight.shape
        A, B = (torch.randn(s, generator=generator) / 4 for s in ((rank, columns), (rows, rank)))
        gain = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank) * B @ A
        weight += gain.T if stored_as_transpose else gain
        embedding = "emb" in layer or "wte" in layer
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        tensors |= {f"base_model.model.{layer}.{n}": t for n, t in zip(names, (A, B), strict=True)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder, state


def change(folder, **tensors):
    file = folder / "adapter_model.safetensors"
    kept = load_file(file) | {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in kept.items() if tensor.numel()}, file)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_its_base_with_the_gains_added(kind, use_rslora, tmp_path):
    folder, state = adapter(tmp_path, kind, use_rslora=use_rslora)
    if kind == "gpt2":  # the head is the embedding
        state["lm_head.weight"] = state["transformer.wte.weight"]
    model, by_hand = load_model(folder), tiny_hf(kind)
    by_hand.load_state_dict(state)
    for (name, own), made in zip(model.hf.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(own, made, msg=name)
    torch.testing.assert_close(model.logits(tiny_tokens()), by_hand(tiny_tokens()).logits)
    assert model.name == "adapter" and model.weights_hash != load_model(tmp_path / "base").weights_hash


def test_tensors_that_are_saved_whole_take_the_place_of_the_bases(tmp_path):
    folder, _ = adapter(tmp_path)
    norm, bias = torch.randn(24), torch.randn(40)
    change(folder, **{"model.norm.weight": norm, "model.layers.1.mlp.up_proj.base_layer.bias": bias})
    model = load_model(folder)
    assert torch.equal(model.hf.model.norm.weight, norm)
    assert torch.equal(model.hf.model.layers[1].mlp.up_proj.bias, bias)


def test_the_tokenizer_is_the_adapters_where_it_has_one(tmp_path):
    folder, _ = adapter(tmp_path)
    assert load_model(folder).tokenizer.chat_template is None
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder)
    assert load_model(folder).tokenizer.chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"peft_type": "IA3"},
            "of the kind IA3; xtalk merges plain LoRA; merge it with peft's merge_and_unload",
        ),
        ({"use_dora": True}, "LoRA with magnitudes"),
        ({"init_lora_weights": "pissa"}, "begins with 'pissa', which changes the base's own weights"),
        ({"layer_replication": [[0, 2]]}, "repeats layers"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path: Input should be a valid string"),
        ({"base_model_name_or_path": "./nowhere"}, "base_model_name_or_path: no folder './nowhere'"),
        ({"alpha_pattern": {"(": 1.0}}, "alpha_pattern"),
    ],
)
def test_other_adapters_are_refused_by_name(changes, reason, tmp_path):
    folder, _ = adapter(tmp_path, **changes)
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    "tensors",
    [
        {"model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(2, 24)},
        {"model.layers.0.self_attn.k_proj.lora_A.weight": torch.ones(2, 24)},  # no B
        {"model.layers.0.self_attn.k_proj.lora_B.weight": torch.ones(20, 2)},  # no A
        {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 23)},
        {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(24)},
        {"model.layers.0.self_attn.q_proj.lora_magnitude_vector": torch.ones(40)},
        {"model.embed_tokens.weight": torch.ones(54, 24)},
        {"score.weight": torch.ones(2, 24)},
    ],
)
def test_tensors_without_a_place_are_refused(tensors, tmp_path):
    folder, _ = adapter(tmp_path)
    change(folder, **tensors)
    assert "for which the model has no place of that shape" in refusal(folder)


def test_a_tied_tensor_that_is_saved_whole(tmp_path):
    folder, _ = adapter(tmp_path, "gpt2")
    change(folder, **{"lm_head.weight": torch.ones(53, 24)})
    assert "lm_head.weight, which the model uses twice" in refusal(folder)


def test_broken_files(tmp_path):
    folder, _ = adapter(tmp_path)
    change(folder, **{"model.norm.weight": torch.full((24,), float("nan"))})
    assert "model.norm.weight has NaN or infinity" in refusal(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"123")
    assert "adapter_model.safetensors cannot be read" in refusal(folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    assert "expected the adapter in safetensors" in refusal(folder)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    assert "cannot be read as JSON" in refusal(folder)


def test_an_adapter_of_itself_is_refused(tmp_path):
    folder, _ = adapter(tmp_path, base_model_name_or_path=str(tmp_path / "adapter"))
    with pytest.raises(XtalkError, match="is an adapter itself"):
        load_model(folder)


def test_a_pattern_that_takes_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr("xtalk.models.adapters._PATTERN_SECONDS", 0.05)
    config = AdapterConfig(
        peft_type="LORA", base_model_name_or_path="x", alpha_pattern={"(a|aa)+": 2.0}, lora_alpha=4.0
    )
    with pytest.raises(XtalkError, match=r"the pattern '\(a\|aa\)\+' of alpha_pattern takes too long on aaa"):
        config.scale("a" * 60 + "!", 4)

"""Models that are no causal transformers with one MLP a block: refused by name, with the reason."""

import pytest
from models.folders import edit_config, refusal
from reference.tiny_models import VOCABULARY, save_tiny, tiny_hf
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from xtalk.errors import XtalkError
from xtalk.models import checkpoint
from xtalk.models.finding import find_family
from xtalk.models.refused import check_kind

REASONS = {
    "bert": "it is an encoder",
    "modernbert": "it is an encoder",
    "t5": "it is an encoder with a decoder",
    "whisper": "it is an encoder with a decoder",
    "mamba": "it is a state-space model",
    "rwkv": "it is a state-space model",
    "recurrent_gemma": "it is a state-space model",
    "jamba": "it is a state-space model",
    "qwen3_next": "it is a state-space model",
    "mixtral": "it is a mixture of experts (num_local_experts 8)",
    "qwen3_moe": "it is a mixture of experts (num_local_experts 128)",
    "deepseek_v3": "it is a mixture of experts (n_routed_experts 256)",
    "gpt_oss": "it is a mixture of experts",
    "llama4": "it is a mixture of experts",
    "vit": "it is no causal language model",
    "no_such_type": "transformers has no code for it",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_kind_is_refused_with_the_reason(kind):
    with pytest.raises(XtalkError) as caught:
        check_kind({"model_type": kind})
    assert f"{kind!r} is not supported: {REASONS[kind]}" in str(caught.value)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3", "gemma3_text", "llava", "olmo2"])
def test_causal_transformers_pass(kind):
    check_kind({"model_type": kind})


def test_a_folder_is_refused_before_its_weights_are_read(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "_load_weights", lambda *_args, **_kwargs: pytest.fail("read"))
    edit_config(folder, model_type="mixtral")
    assert "it is a mixture of experts" in refusal(folder)


def test_a_block_that_cannot_run(folder):
    edit_config(folder, num_heads=-1)
    assert "the first block of a model 'gpt_neo' does not run (invalid shape dimension" in refusal(folder)


def test_experts_in_the_module_tree():
    hf = tiny_hf("llama")
    hf.model.layers[1].mlp.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    with pytest.raises(XtalkError, match="'llama' is not supported: it is a mixture of experts"):
        find_family(hf)


def test_blocks_of_several_kinds():
    hf = tiny_hf("llama")
    hf.model.layers[2].mlp = nn.Linear(24, 24)
    with pytest.raises(XtalkError, match=r"several kinds \(block 2 by 'mlp"):
        find_family(hf)


def test_blocks_without_attention():
    hf = tiny_hf("llama")
    for layer in hf.model.layers:
        layer.mixer = layer.self_attn
        del layer.self_attn
    with pytest.raises(XtalkError, match="its blocks have no attention"):
        find_family(hf)


def test_an_mlp_of_another_build():
    hf = tiny_hf("llama")
    for layer in hf.model.layers:
        layer.mlp = nn.Sequential(nn.Linear(24, 24), nn.SiLU(), nn.Linear(24, 40), nn.Linear(40, 24))
    with pytest.raises(XtalkError, match=r"not those of one MLP \(mlp.0, mlp.2, mlp.3\)"):
        find_family(hf)


def test_norms_of_the_residual_stream_itself():
    config = OPTConfig(vocab_size=VOCABULARY, hidden_size=8, ffn_dim=12, num_hidden_layers=2,
                       num_attention_heads=2, word_embed_proj_dim=8, do_layer_norm_before=False)  # fmt: skip
    with pytest.raises(XtalkError, match="normalise the residual stream itself"):
        find_family(OPTForCausalLM(config).eval())


def test_a_residual_stream_that_goes_on_from_the_norm(tmp_path):
    save_tiny(tmp_path, "bloom")
    edit_config(tmp_path, apply_residual_connection_post_layernorm=True)
    assert "the MLP of block 0 of the model" in refusal(tmp_path)


def test_nothing_is_left_on_a_model_that_was_looked_at():
    hf = tiny_hf("gemma2")
    find_family(hf)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())

"""The supported architectures. A new one is a new row here, and nothing elsewhere."""

from typing import Any

from torch import nn
from transformers import PretrainedConfig

from xtalk.errors import XtalkError
from xtalk.models.family import Family


def _gpt2_like(name: str, qkv: tuple[str, ...], attention_out: str, **different: Any) -> Family:
    return Family(
        name,
        qkv=qkv,
        attention_out=attention_out,
        blocks="transformer.h",
        norm1="ln_1",
        attention="attn",
        norm2="ln_2",
        mlp="mlp",
        w_in="mlp.c_fc",
        w_out="mlp.c_proj",
        activation="activation_function",
        **different,
    )


def _llama_like(name: str, **different: Any) -> Family:
    return Family(
        name,
        blocks="model.layers",
        norm1="input_layernorm",
        attention="self_attn",
        norm2="post_attention_layernorm",
        mlp="mlp",
        w_in="mlp.up_proj",
        w_out="mlp.down_proj",
        w_gate="mlp.gate_proj",
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        attention_out="self_attn.o_proj",
        rotary="model.rotary_emb",
        **different,
    )


def _window_of_local_blocks(attention: nn.Module, config: PretrainedConfig) -> int | None:
    return config.window_size if attention.attention_type == "local" else None


def _window_of_all_blocks(attention: nn.Module, config: PretrainedConfig) -> int | None:
    return config.sliding_window


def _window_of_the_block(attention: nn.Module, config: PretrainedConfig) -> int | None:
    window = attention.sliding_window
    assert window is None or isinstance(window, int)
    return window


def _parallel_residual(config: PretrainedConfig) -> bool:
    return config.use_parallel_residual


FAMILIES: dict[str, Family] = {  # by the `model_type` of config.json
    "gpt_neo": _gpt2_like(
        "GPT-Neo",
        ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        "attn.attention.out_proj",
        block_returns_tuple=True,
        has_sdpa=False,
        window=_window_of_local_blocks,
    ),
    "gpt2": _gpt2_like("GPT-2", ("attn.c_attn",), "attn.c_proj"),
    "gpt_neox": Family(
        "GPT-NeoX",
        blocks="gpt_neox.layers",
        norm1="input_layernorm",
        attention="attention",
        norm2="post_attention_layernorm",
        mlp="mlp",
        w_in="mlp.dense_h_to_4h",
        w_out="mlp.dense_4h_to_h",
        qkv=("attention.query_key_value",),
        attention_out="attention.dense",
        qkv_by_head=True,
        rotary="gpt_neox.rotary_emb",
        parallel=_parallel_residual,
    ),
    "llama": _llama_like("Llama"),
    "mistral": _llama_like("Mistral", window=_window_of_all_blocks),
    "qwen2": _llama_like("Qwen2", window=_window_of_the_block),
    "qwen3": _llama_like("Qwen3", window=_window_of_the_block, score_norm="self_attn.q_norm"),
    "gemma": _llama_like("Gemma", norm_offset=1.0),
}


def family_of(model_type: str | None) -> Family:
    """The family of a `model_type`; XtalkError where it is not supported."""
    if model_type not in FAMILIES:
        supported = ", ".join(f"{row.name} ({key})" for key, row in FAMILIES.items())
        raise XtalkError(
            f"the architecture {model_type!r} is not supported; supported are {supported}; "
            "choose another model"
        )
    return FAMILIES[model_type]

"""The supported architectures: where each keeps its blocks, norms and MLP. A new family is a new row."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import activation_function
from xtalk.models.attention import AttentionWeights
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights


@dataclass(frozen=True)
class Family:
    """One architecture: its name and the paths of its modules; every path but `blocks` is within a block.

    `activation` is the configuration's key for the activation function; `w_gate` is None for ordinary
    MLPs; `qkv` are the layers that make queries, keys and values, one layer if they are fused, and then
    `qkv_by_head` where it makes all three of a head before the next head's; `block_returns_tuple` where a
    block's forward returns a tuple, with the residual stream first; `has_sdpa` where transformers itself has
    the fused attention.
    """

    name: str
    blocks: str
    norm1: str
    attention: str
    norm2: str
    mlp: str
    w_in: str
    w_out: str
    qkv: tuple[str, ...]
    attention_out: str
    qkv_by_head: bool = False
    activation: str = "hidden_act"
    w_gate: str | None = None
    block_returns_tuple: bool = False
    has_sdpa: bool = True


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


def _llama_like(name: str) -> Family:
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
    )


FAMILIES: dict[str, Family] = {  # by the `model_type` of config.json
    "gpt_neo": _gpt2_like(
        "GPT-Neo",
        ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        "attn.attention.out_proj",
        block_returns_tuple=True,
        has_sdpa=False,
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
    ),
    "llama": _llama_like("Llama"),
    "mistral": _llama_like("Mistral"),
    "qwen2": _llama_like("Qwen2"),
    "qwen3": _llama_like("Qwen3"),
    "gemma": _llama_like("Gemma"),
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


def blocks_of(model: PreTrainedModel, family: Family) -> list[nn.Module]:
    """The transformer blocks of `model`, first to last."""
    return list(model.get_submodule(family.blocks).children())


def module_paths(family: Family, blocks: int) -> dict[str, Hookpoint]:
    """The Hugging Face modules whose output is a hookpoint's activation, by path in the model."""
    paths: dict[str, Hookpoint] = {}
    for block in range(blocks):
        path = f"{family.blocks}.{block}"
        paths[path] = Hookpoint(block, "resid_post")
        paths[f"{path}.{family.norm1}"] = Hookpoint(block, "ln1")
        paths[f"{path}.{family.norm2}"] = Hookpoint(block, "ln2")
    return paths


def mlp_weights_of(block: nn.Module, family: Family, config: PretrainedConfig) -> MlpWeights:
    """The MLP of one block as float32 tensors, detached copies of the model's parameters."""
    W_in, b_in = _affine(block.get_submodule(family.w_in))
    W_out, b_out = _affine(block.get_submodule(family.w_out))
    W_gate, b_gate = _affine(block.get_submodule(family.w_gate)) if family.w_gate else (None, None)
    phi = activation_function(getattr(config, family.activation))
    return MlpWeights(W_in, b_in, W_out, b_out, phi, W_gate, b_gate)


def attention_weights_of(
    block: nn.Module, family: Family, config: PretrainedConfig, rotary: nn.Module | None
) -> AttentionWeights:
    """The attention of one block as float32 tensors; rotary: the module that makes the rotary tables.

    Errors: XtalkError for attention whose scores are not bilinear in queries and keys.
    """
    attention = block.get_submodule(family.qkv[0].rpartition(".")[0])
    if hasattr(attention, "q_norm"):
        raise XtalkError(
            f"{family.name} normalises queries and keys, so that its scores are no sums over pairs of "
            "features; measure its MLPs and norms instead"
        )
    heads: int = config.num_attention_heads
    made = [_affine(block.get_submodule(path)) for path in family.qkv]
    if len(made) == 3:
        qkv = [(W.unflatten(1, (-1, W.shape[1] // _heads(config, i))), b) for i, (W, b) in enumerate(made)]
    else:
        [(W, b)] = made
        parts = (heads, 3, -1) if family.qkv_by_head else (3, heads, -1)
        axis = 2 if family.qkv_by_head else 1
        qkv = list(
            zip(W.unflatten(1, parts).unbind(axis), b.unflatten(0, parts).unbind(axis - 1), strict=True)
        )
    (W_Q, b_Q), (W_K, b_K), (W_V, b_V) = (_by_head(W, b, heads) for W, b in qkv)
    W_O, b_O = _affine(block.get_submodule(family.attention_out))
    local = getattr(attention, "attention_type", "local") == "local"  # GPT-Neo's window is of some blocks
    window = getattr(config, "window_size", None) or getattr(
        attention, "sliding_window", getattr(config, "sliding_window", None)
    )
    cos, sin = _rotary_tables(rotary, W_O, config.max_position_embeddings)
    scale = float(getattr(attention, "scaling", 1.0))
    qkvo = (W_Q, b_Q, W_K, b_K, W_V, b_V, W_O.unflatten(0, (heads, -1)), b_O)
    return AttentionWeights(*qkvo, scale, window if local else None, cos, sin)


def _by_head(W: Tensor, b: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(D, groups, h) and (groups * h) as (heads, D, h) and (heads, h), a group's for all its heads."""
    groups = W.shape[1]
    W_HDh, b_Hh = W.transpose(0, 1), b.reshape(groups, -1)
    return W_HDh.repeat_interleave(heads // groups, 0), b_Hh.repeat_interleave(heads // groups, 0)


def _heads(config: PretrainedConfig, which: int) -> int:
    """The number of query (0), key (1) or value (2) heads."""
    grouped = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return config.num_attention_heads if which == 0 else grouped


def _rotary_tables(
    rotary: nn.Module | None, like: Tensor, positions: int
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    if rotary is None:
        return None, None
    cos, sin = rotary(like, torch.arange(positions, device=like.device)[None])
    return cos[0].float(), sin[0].float()


def norm_weights_of(block: nn.Module, path: str, family: Family) -> NormWeights:
    """A norm of one block as float32 tensors, detached copies of the model's parameters."""
    norm = block.get_submodule(path)
    weight = norm.get_parameter("weight").detach().to(torch.float32, copy=True)
    bias = getattr(norm, "bias", None)
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None)
    if family.name == "Gemma":  # its weights count from 1
        weight = weight + 1
    shift = torch.zeros_like(weight) if bias is None else bias.detach().to(torch.float32, copy=True)
    return NormWeights(weight, shift, float(eps or 0.0), centred=isinstance(norm, nn.LayerNorm))


def _affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (in, out) and bias (out) of a linear layer; GPT-2's Conv1D stores the transpose of nn.Linear."""
    weight = layer.get_parameter("weight").detach()
    weight = weight if isinstance(layer, Conv1D) else weight.T
    weight = weight.to(torch.float32, copy=True).contiguous()
    bias = getattr(layer, "bias", None)
    if bias is None:
        return weight, weight.new_zeros(weight.shape[1])
    return weight, bias.detach().to(torch.float32, copy=True)

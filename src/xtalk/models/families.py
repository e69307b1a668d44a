"""The supported architectures: where each keeps its blocks, norms and MLP. A new family is a new row."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import activation_function
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights


@dataclass(frozen=True)
class Family:
    """One architecture: its name and the paths of its modules; every path but `blocks` is within a block.

    `activation` is the configuration's key for the activation function; `w_gate` is None for ordinary
    MLPs; `block_returns_tuple` where a block's forward returns a tuple, with the residual stream first;
    `has_sdpa` where transformers itself has the fused attention.
    """

    name: str
    blocks: str
    norm1: str
    attention: str
    norm2: str
    mlp: str
    w_in: str
    w_out: str
    activation: str = "hidden_act"
    w_gate: str | None = None
    block_returns_tuple: bool = False
    has_sdpa: bool = True


def _gpt2_like(name: str, **different: Any) -> Family:
    return Family(
        name,
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
    )


FAMILIES: dict[str, Family] = {  # by the `model_type` of config.json
    "gpt_neo": _gpt2_like("GPT-Neo", block_returns_tuple=True, has_sdpa=False),
    "gpt2": _gpt2_like("GPT-2"),
    "gpt_neox": Family(
        "GPT-NeoX",
        blocks="gpt_neox.layers",
        norm1="input_layernorm",
        attention="attention",
        norm2="post_attention_layernorm",
        mlp="mlp",
        w_in="mlp.dense_h_to_4h",
        w_out="mlp.dense_4h_to_h",
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


def _affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (in, out) and bias (out) of a linear layer; GPT-2's Conv1D stores the transpose of nn.Linear."""
    weight = layer.get_parameter("weight").detach()
    weight = weight if isinstance(layer, Conv1D) else weight.T
    weight = weight.to(torch.float32, copy=True).contiguous()
    bias = getattr(layer, "bias", None)
    if bias is None:
        return weight, weight.new_zeros(weight.shape[1])
    return weight, bias.detach().to(torch.float32, copy=True)

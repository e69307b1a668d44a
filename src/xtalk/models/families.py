"""What the module tree of an architecture does not show: how its attention lays out its weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from xtalk.models.attention import Rotary


def _window(attention: nn.Module, config: PretrainedConfig) -> int | None:
    """Of the block where each has its own, and of the model where not."""
    own = getattr(attention, "sliding_window", getattr(config, "sliding_window", None))
    assert own is None or isinstance(own, int)
    return own


def _window_of_local_blocks(attention: nn.Module, config: PretrainedConfig) -> int | None:
    return config.window_size if attention.attention_type == "local" else None


def _scale(attention: nn.Module) -> float:
    return float(getattr(attention, "scaling", 1.0))


def _scale_of_falcon(attention: nn.Module) -> float:
    return float(getattr(attention, "inv_norm_factor"))  # noqa: B009  its type is that of a submodule


def _scale_of_gptj(attention: nn.Module) -> float:
    return 1 / float(getattr(attention, "scale_attn"))  # noqa: B009


def _buffered_tables(attention: nn.Module) -> Rotary:
    """GPT-J's, a buffer of each block: sines of half the coordinates, then cosines."""

    def tables(positions_S: Tensor) -> tuple[Tensor, Tensor]:
        sin, cos = attention.get_buffer("embed_positions")[positions_S].float().chunk(2, dim=-1)
        return torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1)

    return tables


@dataclass(frozen=True)
class AttentionLayout:
    """Queries, keys and values made one after the other, each by head, or in one layer.

    by_group: that layer makes the queries of a group of heads, their key and their value before the next
    group's; interleaved: rotary positions turn neighbouring coordinates, not those half a head apart; window:
    how many of the last keys a query sees; scale: of scores; tables: rotary tables where the model has no
    module that makes them.
    """

    by_group: bool = False
    interleaved: bool = False
    window: Callable[[nn.Module, PretrainedConfig], int | None] = _window
    scale: Callable[[nn.Module], float] = _scale
    tables: Callable[[nn.Module], Rotary] | None = None


ATTENTION = {  # by the `model_type` of config.json: those that are read as plain tensors
    "gpt_neo": AttentionLayout(window=_window_of_local_blocks),
    "gpt2": AttentionLayout(),
    "gptj": AttentionLayout(interleaved=True, scale=_scale_of_gptj, tables=_buffered_tables),
    "gpt_neox": AttentionLayout(by_group=True),
    "falcon": AttentionLayout(by_group=True, scale=_scale_of_falcon),
    "llama": AttentionLayout(),
    "smollm3": AttentionLayout(),
    "mistral": AttentionLayout(),
    "qwen2": AttentionLayout(),
    "gemma": AttentionLayout(),
    "granite": AttentionLayout(),
    "cohere": AttentionLayout(interleaved=True),
    "olmo": AttentionLayout(),
    "opt": AttentionLayout(),
    "phi": AttentionLayout(),
    "phi3": AttentionLayout(),
    "stablelm": AttentionLayout(),
}

"""What the module tree of an architecture does not show: how its attention lays out its weights."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig


def _window(attention: nn.Module, config: PretrainedConfig) -> int | None:
    """Of the block where each has its own, and of the model where not."""
    own = getattr(attention, "sliding_window", getattr(config, "sliding_window", None))
    assert own is None or isinstance(own, int)
    return own


def _window_of_local_blocks(attention: nn.Module, config: PretrainedConfig) -> int | None:
    return config.window_size if attention.attention_type == "local" else None


@dataclass(frozen=True)
class AttentionLayout:
    """Queries, keys and values made one after the other, each by head, or in one layer.

    by_head: that layer makes all three of a head before the next head's; window: how many of the last keys a
    query sees.
    """

    by_head: bool = False
    window: Callable[[nn.Module, PretrainedConfig], int | None] = _window


ATTENTION = {  # by the `model_type` of config.json: those that are read as plain tensors
    "gpt_neo": AttentionLayout(window=_window_of_local_blocks),
    "gpt2": AttentionLayout(),
    "gpt_neox": AttentionLayout(by_head=True),
    "llama": AttentionLayout(),
    "mistral": AttentionLayout(),
    "qwen2": AttentionLayout(),
    "gemma": AttentionLayout(),
    "granite": AttentionLayout(),
    "olmo": AttentionLayout(),
    "opt": AttentionLayout(),
    "phi": AttentionLayout(),
    "stablelm": AttentionLayout(),
}

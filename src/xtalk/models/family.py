"""One architecture: where it keeps its modules, and how their weights become plain tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import activation_function
from xtalk.models.attention import AttentionWeights, Rotary
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights


def no_window(attention: nn.Module, config: PretrainedConfig) -> int | None:
    """Queries see all keys before them."""
    return None


def never_parallel(config: PretrainedConfig) -> bool:
    """The MLP reads what attention has added to."""
    return False


@dataclass(frozen=True)
class Family:
    """One architecture: its name, the paths of its modules, and where it differs from the plain case.

    `blocks` and `rotary`, the module that makes rotary tables, are paths in the model; all others are paths
    in a block. `activation` is the configuration's key for the activation function; `w_gate` is None for
    ordinary MLPs; `qkv` are the layers that make queries, keys and values, one layer if they are fused, and
    then `qkv_by_head` where it makes all three of a head before the next head's; `score_norm` is a norm of
    queries or keys, with which scores are not bilinear; `norm_offset` is added to the weights of norms;
    `block_returns_tuple` where a block's forward returns a tuple, with the residual stream first; `has_sdpa`
    where transformers itself has the fused attention. `window` gives the number of last keys that a query
    sees; `parallel` says whether attention and MLP both read the block's input.
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
    w_gate: str | None = None
    activation: str = "hidden_act"
    qkv_by_head: bool = False
    score_norm: str | None = None
    rotary: str | None = None
    norm_offset: float = 0.0
    block_returns_tuple: bool = False
    has_sdpa: bool = True
    window: Callable[[nn.Module, PretrainedConfig], int | None] = no_window
    parallel: Callable[[PretrainedConfig], bool] = never_parallel

    def blocks_of(self, model: PreTrainedModel) -> list[nn.Module]:
        """The transformer blocks of a model, first to last."""
        return list(model.get_submodule(self.blocks).children())

    def module_paths(self, blocks: int) -> dict[str, Hookpoint]:
        """The Hugging Face modules whose output is a hookpoint's activation, by path in the model."""
        paths: dict[str, Hookpoint] = {}
        for block in range(blocks):
            path = f"{self.blocks}.{block}"
            paths[path] = Hookpoint(block, "resid_post")
            paths[f"{path}.{self.norm1}"] = Hookpoint(block, "ln1")
            paths[f"{path}.{self.norm2}"] = Hookpoint(block, "ln2")
        return paths

    def block_output(self, resid_post: Tensor) -> Any:
        """What a block's forward returns when its residual stream is `resid_post`."""
        return (resid_post, None) if self.block_returns_tuple else resid_post

    def mlp_weights(self, block: nn.Module, config: PretrainedConfig) -> MlpWeights:
        """The MLP of a block as float32 tensors, detached copies of the model's parameters."""
        W_in, b_in = _affine(block.get_submodule(self.w_in))
        W_out, b_out = _affine(block.get_submodule(self.w_out))
        W_gate, b_gate = _affine(block.get_submodule(self.w_gate)) if self.w_gate else (None, None)
        phi = activation_function(getattr(config, self.activation))
        return MlpWeights(W_in, b_in, W_out, b_out, phi, W_gate, b_gate)

    def norm_weights(self, block: nn.Module, path: str) -> NormWeights:
        """The norm at a path of a block as float32 tensors, detached copies of the model's parameters."""
        norm = block.get_submodule(path)
        weight = norm.get_parameter("weight").detach().to(torch.float32, copy=True) + self.norm_offset
        bias = getattr(norm, "bias", None)
        eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None)
        shift = torch.zeros_like(weight) if bias is None else bias.detach().to(torch.float32, copy=True)
        return NormWeights(weight, shift, float(eps or 0.0), centred=isinstance(norm, nn.LayerNorm))

    def attention_weights(self, model: PreTrainedModel, block: nn.Module) -> AttentionWeights:
        """The attention of a block of a model as float32 tensors.

        Errors: XtalkError for attention whose scores are not bilinear in queries and keys.
        """
        if self.score_norm is not None:
            raise XtalkError(
                f"{self.name} normalises queries and keys, so that its scores are no sums over pairs of "
                "features; measure its MLPs and norms instead"
            )
        config = model.config
        attention = block.get_submodule(self.qkv[0].rpartition(".")[0])
        heads: int = config.num_attention_heads
        groups: int = getattr(config, "num_key_value_heads", None) or heads
        (W_Q, b_Q), (W_K, b_K), (W_V, b_V) = (
            _by_head(W, b, heads) for W, b in self._query_key_value(block, heads, groups)
        )
        W_O, b_O = _affine(block.get_submodule(self.attention_out))
        return AttentionWeights(
            W_Q, b_Q, W_K, b_K, W_V, b_V, W_O.unflatten(0, (heads, -1)), b_O,
            scale=float(getattr(attention, "scaling", 1.0)),
            window=self.window(attention, config),
            rotary=None if self.rotary is None else _rotary(model.get_submodule(self.rotary), W_O.device),
        )  # fmt: skip

    def _query_key_value(self, block: nn.Module, heads: int, groups: int) -> list[tuple[Tensor, Tensor]]:
        """Weights (D, groups, h) and biases of queries, keys and values; queries have `heads` groups."""
        made = [_affine(block.get_submodule(path)) for path in self.qkv]
        if len(made) == 3:
            counts = (heads, groups, groups)
            return [
                (W.unflatten(1, (count, -1)), b.unflatten(0, (count, -1)))
                for (W, b), count in zip(made, counts, strict=True)
            ]
        [(W, b)] = made
        parts = (heads, 3, -1) if self.qkv_by_head else (3, heads, -1)
        axis = 2 if self.qkv_by_head else 1
        return list(
            zip(W.unflatten(1, parts).unbind(axis), b.unflatten(0, parts).unbind(axis - 1), strict=True)
        )


def _by_head(W: Tensor, b: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(D, groups, h) and (groups, h) as (heads, D, h) and (heads, h), a group's for all its heads."""
    repeats = heads // W.shape[1]
    return W.transpose(0, 1).repeat_interleave(repeats, 0), b.repeat_interleave(repeats, 0)


def _rotary(module: nn.Module, device: torch.device) -> Rotary:
    """A model's own rotary module, whose frequencies may depend on the length of the sequence."""
    float32 = torch.zeros((), device=device)

    def tables(positions_S: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = module(float32, positions_S[None])
        return cos[0], sin[0]

    return tables


def _affine(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (in, out) and bias (out) of a linear layer; GPT-2's Conv1D stores the transpose of nn.Linear."""
    weight = layer.get_parameter("weight").detach()
    weight = weight if isinstance(layer, Conv1D) else weight.T
    weight = weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    bias = getattr(layer, "bias", None)
    if bias is None:
        return weight, weight.new_zeros(weight.shape[1])
    return weight, bias.detach().to(torch.float32, copy=True)

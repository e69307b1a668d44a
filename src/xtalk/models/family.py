"""One architecture: where it keeps its modules, and how their weights become plain tensors."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import ActivationFunction
from xtalk.models.attention import AttentionWeights, Rotary
from xtalk.models.families import AttentionLayout
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights
from xtalk.models.plain import affine, norm_weights


class Layer(NamedTuple):
    """A linear layer by its path in a block, or the first (0) or second (1) half of what it makes."""

    path: str
    half: int | None = None


@dataclass(frozen=True)
class Family:
    """How a model is built: the paths of its modules, and how their outputs are put together.

    `width` is that of the residual stream. `blocks` and `rotary`, the module that makes rotary tables, are
    paths in the model; all others are paths in a block. `norm1` and `norm2` are the norms in front of
    attention and MLP, None where these read the residual stream itself; `parallel` says whether the MLP reads
    the block's input, not what attention has added to. `w_gate` is None for ordinary MLPs; `qkv` are the
    layers that make queries, keys and values, one layer if they are fused. `attention_norm` and `mlp_norm`
    are norms of what attention and MLP put out; `multiplier` scales what they put out. `score_norm` says
    whether queries or keys are normalised, with which scores are not bilinear; `block_returns_tuple` where a
    block's forward returns a tuple, with the residual stream first.
    """

    name: str
    width: int
    blocks: str
    norm1: str | None
    norm2: str | None
    parallel: bool
    w_in: Layer
    w_gate: Layer | None
    w_out: str
    activation: ActivationFunction
    qkv: tuple[str, ...]
    attention_out: str
    attention_norm: str | None
    mlp_norm: str | None
    multiplier: float
    score_norm: bool
    rotary: str | None
    attention: AttentionLayout | None
    block_returns_tuple: bool

    def blocks_of(self, model: PreTrainedModel) -> list[nn.Module]:
        """The transformer blocks of a model, first to last."""
        return list(model.get_submodule(self.blocks).children())

    def module_paths(self, blocks: int) -> dict[str, Hookpoint]:
        """The Hugging Face modules whose output is a hookpoint's activation, by path in the model."""
        paths: dict[str, Hookpoint] = {}
        for block in range(blocks):
            path = f"{self.blocks}.{block}"
            paths[path] = Hookpoint(block, "resid_post")
            if self.norm2 is not None:
                paths[f"{path}.{self.norm2}"] = Hookpoint(block, "ln2")
            if self.norm1 is not None:  # after ln2's, which may be the same norm
                paths[f"{path}.{self.norm1}"] = Hookpoint(block, "ln1")
        return paths

    def block_output(self, resid_post: Tensor) -> Any:
        """What a block's forward returns when its residual stream is `resid_post`."""
        return (resid_post, None) if self.block_returns_tuple else resid_post

    def mlp_weights(self, block: nn.Module) -> MlpWeights:
        """The MLP of a block as float32 tensors, detached copies of the model's parameters."""
        W_in, b_in = _half(block, self.w_in)
        W_out, b_out = affine(block.get_submodule(self.w_out))
        W_gate, b_gate = _half(block, self.w_gate) if self.w_gate else (None, None)
        if self.multiplier != 1:
            W_out, b_out = self.multiplier * W_out, self.multiplier * b_out
        post_norm = None if self.mlp_norm is None else self.norm_weights(block, self.mlp_norm)
        return MlpWeights(W_in, b_in, W_out, b_out, self.activation, W_gate, b_gate, post_norm)

    def norm_weights(self, block: nn.Module, path: str) -> NormWeights:
        """The norm of the residual stream at a path of a block, as float32 tensors."""
        like = block.get_submodule(self.w_out).get_parameter("weight")
        return norm_weights(block.get_submodule(path), like, self.width)

    def attention_weights(self, model: PreTrainedModel, block: nn.Module) -> AttentionWeights:
        """The attention of a block of a model as float32 tensors.

        Errors: XtalkError for attention whose scores are not bilinear in queries and keys, whose output
        passes through a norm, or that is laid out in a way that is not known.
        """
        if reason := self._no_attention_weights(model.config):
            raise XtalkError(f"{self.name} {reason}; measure its MLPs and norms instead")
        layout = self.attention
        assert layout is not None
        attention = block.get_submodule(self.qkv[0].rpartition(".")[0])
        heads: int = model.config.num_attention_heads
        W_O, b_O = (self.multiplier * some for some in affine(block.get_submodule(self.attention_out)))
        rotary = self._rotary(model, attention, W_O.device)
        queries, keys, (W_V, b_V) = (
            _by_head(W, b, heads) for W, b in self._query_key_value(block, heads, len(W_O) // heads)
        )
        turned = 0
        if layout.interleaved and rotary is not None:
            turned = rotary(torch.zeros(1, dtype=torch.long, device=W_O.device))[0].shape[-1]
        (W_Q, b_Q), (W_K, b_K) = ([_halves(some, turned) for some in pair] for pair in (queries, keys))
        return AttentionWeights(
            W_Q, b_Q, W_K, b_K, W_V, b_V, W_O.unflatten(0, (heads, -1)), b_O,
            scale=layout.scale(attention),
            window=layout.window(attention, model.config),
            rotary=rotary,
        )  # fmt: skip

    def _rotary(self, model: PreTrainedModel, attention: nn.Module, device: torch.device) -> Rotary | None:
        """The tables that a block's queries and keys turn by; None where they do not (some of SmolLM3's)."""
        layout = self.attention
        if layout is None or not getattr(attention, "use_rope", True):
            return None
        if layout.tables is not None:
            return layout.tables(attention)
        if self.rotary is None:
            return None
        return _rotary(model.get_submodule(self.rotary), device, layout.interleaved)

    def _no_attention_weights(self, config: PretrainedConfig) -> str | None:
        if self.score_norm:
            return "normalises queries and keys, so that its scores are no sums over pairs of features"
        if self.attention_norm is not None:
            return "normalises what its attention puts out, so that it is no sum over heads and keys"
        if getattr(config, "clip_qkv", None) is not None:
            return "clips queries, keys and values, so that its scores are no sums over pairs of features"
        if getattr(config, "alibi", False):
            return "adds linear biases to its scores, which are not read as plain tensors"
        if self.attention is None:
            return "has attention of a kind that is not read as plain tensors"
        return None

    def _query_key_value(self, block: nn.Module, heads: int, h: int) -> list[tuple[Tensor, Tensor]]:
        """Weights (D, groups, h) and biases of queries, keys and values; queries have `heads` groups."""
        made = [affine(block.get_submodule(path)) for path in self.qkv]
        if len(made) == 3:
            return [(W.unflatten(1, (-1, h)), b.unflatten(0, (-1, h))) for W, b in made]
        [(W, b)] = made
        groups = (len(b) // h - heads) // 2
        if self.attention is None or not self.attention.by_group:
            counts = (heads, groups, groups)
            weights, biases = W.unflatten(1, (-1, h)).split(counts, 1), b.unflatten(0, (-1, h)).split(counts)
            return list(zip(weights, biases, strict=True))
        weight, bias = W.unflatten(1, (groups, -1, h)), b.unflatten(0, (groups, -1, h))
        queries = weight[:, :, :-2].flatten(1, 2), bias[:, :-2].flatten(0, 1)
        return [queries, (weight[:, :, -2], bias[:, -2]), (weight[:, :, -1], bias[:, -1])]


def _by_head(W: Tensor, b: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(D, groups, h) and (groups, h) as (heads, D, h) and (heads, h), a group's for all its heads."""
    repeats = heads // W.shape[1]
    return W.transpose(0, 1).repeat_interleave(repeats, 0), b.repeat_interleave(repeats, 0)


def _halves(some: Tensor, turned: int) -> Tensor:
    """Heads' coordinates with the pairs of the first `turned` half of them apart, not beside each other."""
    return torch.cat([some[..., 0:turned:2], some[..., 1:turned:2], some[..., turned:]], dim=-1)


def _rotary(module: nn.Module, device: torch.device, interleaved: bool) -> Rotary:
    """A model's own rotary module, whose frequencies may depend on the length of the sequence."""
    float32 = torch.zeros((), device=device)

    def tables(positions_S: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = module(float32, positions_S[None])
        if interleaved:
            cos, sin = (torch.cat([some[..., ::2]] * 2, dim=-1) for some in (cos, sin))
        return cos[0], sin[0]

    return tables


def _half(block: nn.Module, layer: Layer) -> tuple[Tensor, Tensor]:
    weight, bias = affine(block.get_submodule(layer.path))
    if layer.half is None:
        return weight, bias
    return weight.chunk(2, dim=1)[layer.half].contiguous(), bias.chunk(2)[layer.half].contiguous()

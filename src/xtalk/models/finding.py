"""Where a model keeps what: its first block is run, to see which module reads what another one made."""

import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import ALL, ActivationFunction
from xtalk.models.families import ATTENTION
from xtalk.models.family import Family, Layer
from xtalk.models.plain import activation_of, is_linear, is_norm
from xtalk.models.refused import refusal

_TOKENS = 4
_ATTENTION = re.compile("attn|attention")
_EXPERTS = re.compile("expert|router")


def find_family(model: PreTrainedModel) -> Family:
    """How a model is built, from its module tree and a run of its first block on a few tokens.

    Errors: XtalkError names the model's type and what does not fit: no blocks or blocks of several kinds, no
    attention, several experts, more than one MLP, norms of the residual stream itself.
    """
    kind = str(model.config.model_type)
    path, blocks = _blocks(model, kind)
    block = blocks[0]
    attention = _attention(block, kind)
    try:
        run = _trace(model, block)
    except (RuntimeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise XtalkError(
            f"the first block of a model {kind!r} does not run ({words}); is its config.json whole?"
        ) from error
    linears = [step for step in run.steps if is_linear(step.module)]
    inside = [step for step in linears if step.path.startswith(f"{attention}.")]
    outside = [step for step in linears if step not in inside]
    norms = [step for step in run.steps if is_norm(step.module)]
    if not isinstance(run.output, Tensor):
        raise refusal(kind, "its blocks do not put out the residual stream")
    if len(inside) < 2:
        raise refusal(kind, "its attention is not made of linear layers")
    if any(_same(norm.output, run.output) for norm in norms):
        raise refusal(kind, "its blocks normalise the residual stream itself, after the MLP")
    attention_out = inside[-1]
    layers = _mlp_layers(outside, kind)
    w_in, w_out = outside[0], outside[-1]
    norm1 = _made(norms, inside[0].input)
    norm2 = _made(norms, w_in.input)
    family = Family(
        name=re.sub("(ForCausalLM|LMHeadModel)$", "", type(model).__name__),
        width=model.config.hidden_size,
        blocks=path,
        norm1=norm1.path if norm1 else None,
        norm2=norm2.path if norm2 else None,
        parallel=_same((norm2 or w_in).input, run.input),
        w_in=layers[-1],
        w_gate=layers[0] if len(layers) == 2 else None,
        w_out=w_out.path,
        activation=_activation(run.steps, attention, w_out, model, kind),
        qkv=tuple(step.path for step in inside[:-1]),
        attention_out=attention_out.path,
        attention_norm=_read(norms, attention_out.output),
        mlp_norm=_read(norms, w_out.output),
        multiplier=float(getattr(model.config, "residual_multiplier", 1.0)),
        score_norm=any(norm.path.startswith(f"{attention}.") for norm in norms),
        rotary=next((name for name, _ in model.named_modules() if name.endswith(".rotary_emb")), None),
        attention=ATTENTION.get(kind),
        block_returns_tuple=run.returns_tuple,
    )
    return _nearest(family, block, w_in.input, w_out.output)


def _blocks(model: PreTrainedModel, kind: str) -> tuple[str, list[nn.Module]]:
    """The path and the modules of the blocks, all of one build."""
    count = model.config.num_hidden_layers
    lists = [
        (path, list(module.children()))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and sum(map(is_linear, module[0].modules())) > 1
    ]
    if not lists:
        raise refusal(kind, "it has no list of as many blocks as its config.json says")
    path, blocks = lists[0]
    builds = [{name: type(part) for name, part in block.named_modules()} for block in blocks]
    if any(_EXPERTS.search(name) for build in builds for name in build):
        raise refusal(kind, "it is a mixture of experts")
    for number, build in enumerate(builds):
        if differing := sorted(name for name, _ in build.items() ^ builds[0].items()):
            raise refusal(kind, f"its blocks are of several kinds (block {number} by {differing[-1]!r})")
    return path, blocks


def _attention(block: nn.Module, kind: str) -> str:
    found = [
        name
        for name, part in block.named_children()
        if _ATTENTION.search(name) and any(map(is_linear, part.modules()))
    ]
    if not found:
        raise refusal(kind, "its blocks have no attention, as those of state-space models")
    if len(found) > 1:
        raise refusal(kind, f"its blocks attend more than once ({', '.join(found)})")
    return found[0]


@dataclass(frozen=True, eq=False)
class _Step:
    """A module that ran, what it read and what it put out."""

    path: str
    module: nn.Module
    input: Tensor
    output: Tensor


@dataclass(eq=False)
class _Run:
    """What a block read and put out, and the modules that ran in it, in order."""

    steps: list[_Step] = field(default_factory=list)
    input: Tensor = field(default_factory=lambda: torch.empty(0))
    output: Any = None
    returns_tuple: bool = False


class _Seen(Exception):
    """The block has run; the rest of the model need not."""


@torch.no_grad()
def _trace(model: PreTrainedModel, block: nn.Module) -> _Run:
    run = _Run()
    with _hooks(block, run):
        tokens_1S = torch.arange(_TOKENS, device=model.device)[None] % model.config.vocab_size
        with suppress(_Seen):
            model.base_model(input_ids=tokens_1S, use_cache=False)
    return run


@contextmanager
def _hooks(block: nn.Module, run: _Run) -> Generator[None]:
    """All tensors are kept for as long as the run, so that each has an address of its own."""

    def on_part(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(output, Tensor):
                run.steps.append(_Step(path, module, args[0], output))

        return hook

    def on_block(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        run.input = args[0] if args else kwargs["hidden_states"]
        run.returns_tuple = isinstance(output, tuple)
        run.output = output[0] if run.returns_tuple else output
        raise _Seen

    parts = {
        path: module
        for path, module in block.named_modules()
        if is_linear(module) or not any(module.children())
    }
    handles = [part.register_forward_hook(on_part(path)) for path, part in parts.items()]
    handles.append(block.register_forward_hook(on_block, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr()


def _made(norms: list[_Step], value: Tensor) -> _Step | None:
    """The norm that made a value."""
    return next((norm for norm in norms if _same(norm.output, value)), None)


def _read(norms: list[_Step], value: Tensor) -> str | None:
    """The norm that reads a value."""
    return next((norm.path for norm in norms if _same(norm.input, value)), None)


def _mlp_layers(steps: list[_Step], kind: str) -> tuple[Layer, ...]:
    """The layers that make an MLP's neurons: one, or two of a gated MLP, whose order is not yet known."""
    shapes = [(step.input.shape[-1], step.output.shape[-1]) for step in steps]
    match shapes:
        case [(_, made), (read, _)] if made == read:
            return (Layer(steps[0].path),)
        case [(_, made), (read, _)] if made == 2 * read:
            return Layer(steps[0].path, 0), Layer(steps[0].path, 1)
        case [(_, one), (_, two), (read, _)] if one == two == read:
            return Layer(steps[0].path), Layer(steps[1].path)
        case _:
            pass
    paths = ", ".join(step.path for step in steps) or "none"
    raise refusal(
        kind, f"the linear layers of its blocks outside attention are not those of one MLP ({paths})"
    )


def _activation(
    steps: list[_Step], attention: str, w_out: _Step, model: PreTrainedModel, kind: str
) -> ActivationFunction:
    """The function that one of the MLP's modules without parameters computes."""
    width, seen = w_out.input.shape[-1], []
    for step in steps:
        if step.path.startswith(f"{attention}.") or any(True for _ in step.module.parameters()):
            continue
        if is_norm(step.module) or isinstance(step.module, nn.Dropout) or step.output.shape[-1] != width:
            continue
        if phi := activation_of(step.module, w_out.input):
            return phi
        seen.append(type(step.module).__name__)
    what = f"use the activation function {', '.join(seen)}" if seen else "have no module that activates"
    raise XtalkError(
        f"the MLPs of the architecture {kind!r} {what}; supported are "
        f"{', '.join(phi.name for phi in ALL)}; choose another model"
    )


def _nearest(family: Family, block: nn.Module, n: Tensor, output: Tensor) -> Family:
    """The family with value and gate the way round that comes nearest to the output of its first MLP."""
    if family.w_gate is None:
        return family
    ways = family, replace(family, w_in=family.w_gate, w_gate=family.w_in)
    unscaled = [replace(way, multiplier=1.0).mlp_weights(block) for way in ways]
    errors = [float((mlp(n.float()) - output.float()).norm()) for mlp in unscaled]
    return ways[errors.index(min(errors))]

"""Reading and replacing what flows between the modules of a model, by hooks that never outlive their use."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xtalk.models.family import Family
from xtalk.models.hookpoints import Hookpoint

Read = Callable[[Tensor], object]


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Generator[None]:
    """Run each module as the given function for the time of the context; hooks on the module still run."""
    with ExitStack() as stack:
        for module, forward in forwards.items():
            original = module.__dict__.get("forward")
            stack.callback(_restore_forward, module, original)
            module.__dict__["forward"] = forward
        yield


def _restore_forward(module: nn.Module, original: Callable[..., Any] | None) -> None:
    if original is None:  # the usual case: forward is the class's method, and was shadowed
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = original


def first_tensor(output: Any) -> Tensor:
    """The main output of a module that returns a tensor or a tuple that starts with one."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def reading(block: nn.Module, family: Family, hookpoint: Hookpoint, read: Read) -> Generator[None]:
    """Call `read` with the activations at `hookpoint`, a site of `block`, whenever the block runs.

    Some blocks flatten the sequences of a batch in front of their MLP.
    """
    with ExitStack() as stack:

        def on_input(path: str, read: Read) -> None:
            def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                read(args[0] if args else kwargs["hidden_states"])

            module = block.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

        def on_output(path: str, read: Read) -> None:
            def hook(_: nn.Module, args: Any, output: Any) -> None:
                read(first_tensor(output))

            stack.callback(block.get_submodule(path).register_forward_hook(hook).remove)

        match hookpoint.site:
            case "resid_pre":
                on_input("", read)
            case "ln1":
                on_input(family.qkv[0], read)
            case "resid_mid" if family.parallel:  # a sum that the block never forms alone
                resid_pre: list[Tensor] = []
                on_input("", resid_pre.append)
                attention = family.attention_norm or family.attention_out
                on_output(attention, lambda out: read(resid_pre.pop() + family.multiplier * out))
            case "resid_mid":
                on_input(family.norm2 or family.w_in.path, read)
            case "ln2":
                on_input(family.w_in.path, read)
            case "resid_post":
                on_output("", read)
        yield


@contextmanager
def adding(block: nn.Module, family: Family, added: Tensor) -> Generator[None]:
    """Let `block` add a tensor to its resid_mid, in place of what its MLP adds, whenever it runs.

    The MLP, whose output nobody asks for, is not computed where it is a module of its own.
    """
    mids: list[Tensor] = []

    def put_out(*_: Any) -> Any:
        return family.block_output(mids.pop().view(added.shape) + added)

    with ExitStack() as stack:
        stack.enter_context(reading(block, family, Hookpoint(0, "resid_mid"), mids.append))
        mlp = family.w_out.rpartition(".")[0]
        if mlp and family.w_in.path.startswith(f"{mlp}.") and (family.norm2 or family.parallel):
            stack.enter_context(replaced_forwards({block.get_submodule(mlp): _nothing}))
        stack.callback(block.register_forward_hook(put_out).remove)
        yield


def _nothing(*args: Tensor, **kwargs: Tensor) -> Tensor:
    return torch.zeros_like(args[0] if args else kwargs["hidden_states"])

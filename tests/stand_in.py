"""A device that stands in for a GPU where there is none: its tensors lie apart from the CPU's.

Operations run on the CPU underneath, and refuse what CUDA refuses: tensors and generators of different
devices together, and numpy. Products under autocast run in bfloat16, as CUDA's do. So code that leaves a
tensor on the wrong device fails in every test run, though no speed and no rounding of a GPU is seen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "standin"
aten = torch.ops.aten
_MOVES = {aten.copy_.default, aten._to_copy.default}
_PUTS = {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_MATMUL = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__}
_IN_BFLOAT16 = ("mm", "bmm", "mv", "matmul", "linear", "addmm", "baddbmm", "scaled_dot_product_attention")
_IN_FLOAT32 = ("softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "exp", "log", "cumsum", "rsqrt")
_IN_WIDEST = ("cat", "stack", "scatter_add")


class _There(torch.Tensor):
    """A tensor of the device; `held` is what stands for it on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "_There":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"{NAME}({self.held})"


def _run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation, on the CPU; its results are where CUDA would leave them."""
    if op is aten._fused_sdp_choice.default:
        return 0  # attention by plain products
    there = {id(x.held): x for x in trees.tree_leaves((args, kwargs)) if isinstance(x, _There)}
    _check(op, args, kwargs, bool(there))
    to = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type == NAME
    args, kwargs = trees.tree_map_only(_There, lambda x: x.held, (args, kwargs))
    if to is not None:
        kwargs = kwargs | {"device": torch.device("cpu"), "pin_memory": False}
    elif op is aten.copy_.default:
        to = id(args[0]) in there
    shapes = {key: x.shape for key, x in there.items()}
    found = op(*args, **kwargs)
    for key, x in there.items():
        assert x.held.shape == shapes[key], f"{op} reshapes in place, which the stand-in cannot"
    if not (bool(there) if to is None else to):
        return found
    return trees.tree_map_only(torch.Tensor, lambda x: there[id(x)] if id(x) in there else _There(x), found)


def _check(op: Any, args: Any, kwargs: Any, any_there: bool) -> None:
    """Errors: RuntimeError for tensors of two devices, but for moves, numbers, and places on the CPU."""
    if op in _MOVES or not any_there:
        return
    here = [
        x
        for x in trees.tree_leaves((args, kwargs))
        if isinstance(x, torch.Tensor) and not isinstance(x, _There) and x.ndim
    ]
    if op in _PUTS or op is aten.index.Tensor:  # places may be on the CPU, if the tensor is not
        here = [x for x in (args[0], *args[2:3]) if any(x is other for other in here)]
    if here:
        raise RuntimeError(f"{op}: tensors of shapes {[tuple(x.shape) for x in here]} are on the CPU")


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


class _Generator(torch.Generator):
    """A generator that says it is of the device."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        made = super().__new__(cls, "cpu")
        made.of = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.of

    def manual_seed(self, seed: int) -> "_Generator":
        super().manual_seed(seed)
        return self


class _Generators(TorchFunctionMode):
    def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (generator := kwargs.get("generator")) is not None:
            of = [x.device for x in args if isinstance(x, torch.Tensor)]
            device = torch.device(kwargs.get("device") or (of[0] if of else "cpu"))
            if device.type != generator.device.type:
                raise RuntimeError(f"{f.__name__}: a generator of {generator.device} for {device}")
        if f in _MATMUL and args[0].ndim == 1 < args[1].ndim:  # torch's own way reshapes in place
            return (args[0][None] @ args[1]).squeeze(-2)
        found = f(*args, **kwargs)
        if f == torch.Tensor.data.__set__ and isinstance(args[0], _There):
            args[0].held = args[1].held
        return found


class _Module:
    """What torch asks of a device's module."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])


def _cast(name: str, to: Callable[[list[torch.dtype]], torch.dtype]) -> Callable[..., Any]:
    """An operation under autocast: its floating-point tensors in the dtype that `to` chooses."""
    packet, _, overload = name.partition(".")
    op = getattr(getattr(aten, packet), overload or "default")

    def run(*args: Any, **kwargs: Any) -> Any:
        key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(key):
            leaves = trees.tree_leaves((args, kwargs))
            floats = [x.dtype for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
            if torch.float64 not in floats and floats:
                args, kwargs = trees.tree_map_only(
                    torch.Tensor,
                    lambda x: x.to(to(floats)) if x.is_floating_point() else x,
                    (args, kwargs),
                )
            return op(*args, **kwargs)

    return run


@cache
def register() -> list[torch.library.Library]:
    """Make the device known to torch, with what autocast does there.

    Before anything else is differentiated: autograd takes its count of devices at the first backward pass.
    """
    _setup_privateuseone_for_python_backend(NAME, _Module())
    fallback, casts = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    ways = {
        _IN_BFLOAT16: lambda floats: torch.bfloat16,
        _IN_FLOAT32: lambda floats: torch.float32,
        _IN_WIDEST: lambda floats: max(floats, key=lambda dtype: dtype.itemsize),
    }
    for names, to in ways.items():
        for name in names:
            casts.impl(name, _cast(name, to), "AutocastPrivateUse1")
    return [fallback, casts]


@contextmanager
def stand_in() -> Iterator[torch.device]:
    """Inside, torch has one more device."""
    register()
    flatten = safetensors.torch._flatten_as_ptr

    def flattened(tensors: dict[str, torch.Tensor], *rest: Any) -> Any:
        return flatten({name: x.cpu() for name, x in tensors.items()}, *rest)

    with (
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(safetensors.torch, "_flatten_as_ptr", flattened),  # as it does for CUDA
        _Generators(),
        _Everywhere(),
    ):
        torch.__future__.set_swap_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield torch.device(NAME, 0)
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_swap_module_params_on_conversion(False)

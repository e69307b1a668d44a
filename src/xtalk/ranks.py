"""The processes that train one crosscoder together: `torchrun --nproc-per-node N -m xtalk run ...`.

Each rank harvests its own sequences of every buffer and works on their tokens; gradients are summed, and
what compares tokens (the cut of BatchTopK, calibration) compares those of all ranks. So the batches are those
of one process, and the results too, but for rounding. Outside `joined` there is one rank, and nothing is
exchanged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from xtalk.errors import XtalkError

if TYPE_CHECKING:
    import torch

_PATIENCE = timedelta(days=7)  # one rank may evaluate for hours while the others wait

_rank, _world = 0, 1
exchanged = 0
"""Bytes that this process gave to collectives, each tensor once."""


def rank() -> int:
    """The number of this process, from 0."""
    return _rank


def world() -> int:
    """How many processes there are."""
    return _world


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started; alone where it started none.

    Errors: XtalkError where the processes do not find each other.
    """
    global _rank, _world
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # each device its own
        dist.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise XtalkError(
            f"the processes do not find each other ({_words(error)}); start them anew"
        ) from error
    _rank, _world = dist.get_rank(), dist.get_world_size()
    try:
        yield
    finally:
        _rank, _world = 0, 1
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, the process exchanges nothing: what one rank does while others wait, or each for itself."""
    global _rank, _world
    before, _rank, _world = (_rank, _world), 0, 1
    try:
        yield
    finally:
        _rank, _world = before


def summed(tensor: "torch.Tensor") -> "torch.Tensor":
    """The sum of a tensor over all ranks, in its place."""
    return _reduced(tensor, "SUM")


def largest(tensor: "torch.Tensor") -> "torch.Tensor":
    """The elementwise largest of a tensor over all ranks, in its place."""
    return _reduced(tensor, "MAX")


def total(count: int) -> int:
    """The sum of a number over all ranks."""
    return sum(each(count))


def gathered(values_N: "torch.Tensor") -> "torch.Tensor":
    """The values of all ranks, one rank after the other; each may have another number of them."""
    if _world == 1:
        return values_N
    import torch

    with _together() as dist:
        count = torch.tensor([len(values_N)], device=values_N.device)
        counts = [torch.zeros_like(count) for _ in range(_world)]
        dist.all_gather(counts, count)
        most = int(torch.stack(counts).max())
        padded = values_N.new_zeros(most)
        padded[: len(values_N)] = values_N
        parts = [torch.empty_like(padded) for _ in range(_world)]
        dist.all_gather(parts, padded)
        _count(padded)
        return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)])


def each(value: Any) -> list[Any]:
    """What every rank has, by rank: values that are made of numbers, strings, lists and mappings."""
    if _world == 1:
        return [value]
    import json

    import torch

    data = bytearray(json.dumps(value).encode() + b"\n")
    lines = bytes(gathered(torch.frombuffer(data, dtype=torch.uint8)).tolist())
    return list(map(json.loads, lines.splitlines()))


def from_first(value: Any) -> Any:
    """What the first rank has, as `each` takes it."""
    return each(value)[0]


def check_equal(value: str, what: str) -> None:
    """Errors: XtalkError if the ranks do not all have the same value."""
    if len(set(each(value))) > 1:
        raise XtalkError(f"the processes have different {what}; start all of them with the same command")


def wait() -> None:
    """Wait until every rank is here."""
    if _world > 1:
        total(0)


def _reduced(tensor: "torch.Tensor", how: str) -> "torch.Tensor":
    if _world > 1:
        with _together() as dist:
            dist.all_reduce(tensor, getattr(dist.ReduceOp, how))
            _count(tensor)
    return tensor


def _count(tensor: "torch.Tensor") -> None:
    global exchanged
    exchanged += tensor.numel() * tensor.element_size()


@contextmanager
def _together() -> Iterator[Any]:
    """Inside, the ranks exchange. Errors: XtalkError names those that are gone."""
    import torch.distributed as dist

    try:
        yield dist
    except RuntimeError as error:
        raise XtalkError(
            f"process {_rank} of {_world} lost the others ({_words(error)}); what is complete and the last "
            "checkpoint are kept, go on with the same command"
        ) from error


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

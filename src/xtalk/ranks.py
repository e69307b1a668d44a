"""The processes that train one crosscoder together: `torchrun --nproc-per-node N -m xtalk run ...`.

Each rank harvests its own sequences of every buffer and holds the weights of its own latents
(`xtalk.training.shares`). What compares numbers (the K largest, calibration) compares those of all ranks. So
the batches are those of one process, and the results too, but for rounding. Outside `joined` there is one
rank, and nothing is exchanged.
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
    if _world > 1:
        with _together() as dist:
            dist.all_reduce(tensor)
            _count(tensor)
    return tensor


def total(count: int) -> int:
    """The sum of a number over all ranks."""
    return sum(counts_of(count))


def part(count: int) -> slice:
    """The part of `count` rows that is this rank's: all of nearly the same length, in the ranks' order."""
    return slice(_rank * count // _world, (_rank + 1) * count // _world)


def counts_of(count: int) -> list[int]:
    """A number that every rank has, by rank."""
    if _world == 1:
        return [count]
    import torch

    with _together() as dist:
        found = [torch.empty(1, dtype=torch.int64) for _ in range(_world)]
        dist.all_gather(found, torch.tensor([count]))
    return [int(one) for one in found]


def gathered(rows_nX: "torch.Tensor", counts: list[int] | None = None) -> "torch.Tensor":
    """The rows of all ranks, one rank after the other. counts: how many each has, where that is known."""
    if _world == 1:
        return rows_nX
    import torch

    counts = counts_of(len(rows_nX)) if counts is None else counts
    most, shape = max(counts), rows_nX.shape[1:]
    padded = rows_nX.contiguous()
    if len(rows_nX) < most:
        padded = torch.cat([padded, padded.new_zeros(most - len(rows_nX), *shape)])
    all_NX = padded.new_empty(_world * most, *shape)
    with _together() as dist:
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # before torch 2.13
        gather(all_NX, padded)
        _count(rows_nX)
    if min(counts) == most:
        return all_NX
    return torch.cat([rows[:n] for rows, n in zip(all_NX.split(most), counts, strict=True)])


def columns(values_BC: "torch.Tensor") -> tuple["torch.Tensor", slice]:
    """The columns of all ranks, side by side; which of them are this rank's."""
    if _world == 1:
        return values_BC, slice(None)
    counts = counts_of(values_BC.shape[1])
    first = sum(counts[:_rank])
    return gathered(values_BC.T, counts).T, slice(first, first + counts[_rank])


def own_of_sum(rows_NX: "torch.Tensor", counts: list[int]) -> "torch.Tensor":
    """Of the sum over all ranks, this rank's rows. counts: how many of the N rows are each rank's."""
    if _world == 1:
        return rows_NX
    own = counts[_rank]
    parts_MX = rows_NX.new_empty(_world * own, *rows_NX.shape[1:])
    with _together() as dist:  # over gloo several times as fast as reduce_scatter, and added up in one order
        dist.all_to_all_single(parts_MX, rows_NX.contiguous(), [own] * _world, counts)
        _count(rows_NX)
    return parts_MX.view(_world, own, *rows_NX.shape[1:]).sum(0)


def each(value: Any) -> list[Any]:
    """What every rank has, by rank: values that are made of numbers, strings, lists and mappings."""
    if _world == 1:
        return [value]
    import json

    import torch

    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = counts_of(len(data))
    return [json.loads(bytes(own.tolist())) for own in gathered(data, lengths).split(lengths)]


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

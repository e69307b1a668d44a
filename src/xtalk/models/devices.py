"""Where models run, and how many tokens at once."""

import gc
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from xtalk.errors import XtalkError

logger = logging.getLogger("xtalk")

# Measured: on a CPU more tokens leave the cache (throughput falls from 2048 up); a GPU wants more work.
CPU_TOKENS, GPU_TOKENS = 2048, 32768
_CPU_FLOATS = 1 << 28  # 1 GiB of float32
_GPU_PART = 8  # of its memory, the part that the numbers of a micro-batch may take


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_dtype(name: str) -> torch.dtype:
    """What a model computes in. Errors: XtalkError for a name that is none."""
    if name not in DTYPES:
        raise XtalkError(f"no dtype {name!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU.

    Errors: XtalkError for one that is not there, or that has no float64, which sums over a text are kept in.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:  # torch raises all these
        raise XtalkError(
            f"no device {name!r} on this machine, or none with float64; expected auto, cpu or cuda"
        ) from error
    return device


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are several times faster on the device than in float32."""
    if device.type != "cpu":
        return device.type == "cuda"
    # older versions of torch cannot tell
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def sequences_at_once(length: int, device: torch.device, floats_per_token: int) -> int:
    """How many sequences of `length` tokens make a micro-batch: as many as run fastest, within memory.

    floats_per_token: how many float32 numbers each token needs at a time. A rule of shapes and device alone,
    so that the same run on the same machine gives the same bytes.
    """
    tokens, floats = CPU_TOKENS, _CPU_FLOATS
    if device.type == "cuda":
        tokens = GPU_TOKENS
        floats = torch.cuda.get_device_properties(device).total_memory // (4 * _GPU_PART)
    return max(1, min(tokens, floats // floats_per_token) // length)


def in_halves_if_full(run: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """`run` on a batch of sequences, the first axis of all its tensors; of two halves if memory runs out.

    Says so, each time. Errors: XtalkError where a single sequence does not fit.
    """
    try:
        return run(*batch)
    except (RuntimeError, MemoryError) as error:
        if not _is_full(error):
            raise
        reason = " ".join(str(error).split())[:200]
    sequences, length = batch[-1].shape[:2]
    if sequences == 1:
        raise XtalkError(
            f"out of memory with one sequence of {length} tokens ({reason}); choose a shorter "
            "sequence_length, fewer hookpoints, or a machine with more memory"
        )
    gc.collect()  # only now that the failed call's frames are gone
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of memory with %d sequences of %d tokens: going on with half", sequences, length)
    halves = zip(*(tensor.tensor_split(2) for tensor in batch), strict=True)
    return torch.cat([in_halves_if_full(run, *half) for half in halves])


def _is_full(error: Exception) -> bool:
    kinds = torch.OutOfMemoryError, MemoryError
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)

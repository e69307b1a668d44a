"""A dictionary's training step against sparsify's, the fastest of the packages that can be installed for it.

sparsify (`pip install eai-sparsify`) trains dictionaries of one hookpoint, so the hookpoints are put end to
end, which is the same dictionary; both are TopK with fused Adam. It computes in float32, xtalk in its default
dtype; the learning rate is 0, so that both stay at the same weights, where `value` is the float32 loss. The
floor is that of `step`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.paired import Variants, work
from benchmarks.step import BFLOAT16, Inputs, draw, floor, objective, step

VARIANTS: Variants = ("xtalk", "sparsify", "floor")


def sparsify_of(inputs: Inputs) -> Any:
    """A dictionary of sparsify's with the same weights."""
    coder, config = (import_module(f"sparsify.{name}") for name in ("sparse_coder", "config"))
    ours = inputs.crosscoder
    sizes = {"num_latents": ours.config.d_sae, "k": ours.config.k, "normalize_decoder": False}
    theirs = coder.SparseCoder(ours.W_dec[0].numel(), config.SparseCoderConfig(**sizes))
    with torch.no_grad():
        theirs.encoder.weight.copy_(ours.W_enc.flatten(0, 1).T)
        theirs.W_dec.copy_(ours.W_dec.flatten(1))
    return theirs


def sparsify_loss(theirs: Any, x_BPD: Tensor) -> Tensor:
    """Its reconstruction loss, in our units: the squared error of a token."""
    x_BX = x_BPD.flatten(1)
    variance = (x_BX - x_BX.mean(0)).square().sum()
    return theirs(x_BX).fvu * variance / len(x_BX)


def sparsify_step(theirs: Any, optimiser: torch.optim.Adam, x_BPD: Tensor) -> None:
    """A training step of sparsify's."""
    optimiser.zero_grad()
    sparsify_loss(theirs, x_BPD).backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 10.0)
    optimiser.step()


def _steps(variant: str, inputs: Inputs) -> tuple[Callable[[], None], Callable[[], float]]:
    """What is timed, and the float32 loss."""
    if variant == "sparsify":
        theirs = sparsify_of(inputs)
        optimiser = torch.optim.Adam(theirs.parameters(), lr=0.0, fused=True)
        return (
            lambda: sparsify_step(theirs, optimiser, inputs.x_BPD),
            lambda: sparsify_loss(theirs, inputs.x_BPD).item(),
        )
    run = floor if variant == "floor" else lambda i: step(i, lambda i: objective(i, BFLOAT16))
    return lambda: run(inputs), lambda: objective(inputs, False).item()


def measure(variant: str, *, small: bool, latents: int) -> dict[str, float]:
    """One variant, with so many latents."""
    sizes = (64, 5, 24, 96, 5) if small else (256, 17, 768, latents, 20)
    run, value = _steps(variant, draw(*sizes, fused=True, architecture="topk"))
    tiny, _ = _steps(variant, draw(8, 2, 3, 16, 2, fused=True, architecture="topk"))
    return work(tiny, run, lambda _: value())

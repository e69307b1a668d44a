"""A crosscoder's training step, without penalties, against a straightforward dense one in float32.

At the paper's size: B 256, P 17, D 768, L 1536, K 20; wide: L 16384 (some 10 GB). Both are BatchTopK with
Adam and a clipped gradient norm; the learning rate is 0, so that both stay at the same weights, where `value`
is the float32 loss. The floor is the encoder's products, forward and backward, in xtalk's dtype, and the
optimiser.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.paired import Variants, work
from xtalk.crosscoder.config import Architecture, CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.training.config import TrainingConfig
from xtalk.training.objective import Objective

NO_DEAD = torch.empty(0, dtype=torch.int64)
BFLOAT16 = TrainingConfig(steps=1, batch_tokens=1).uses_bfloat16(torch.device("cpu"))


@dataclass(frozen=True)
class Inputs:
    """A crosscoder, its optimiser, and a batch of activations in scaled space."""

    crosscoder: Crosscoder
    optimiser: torch.optim.Adam
    x_BPD: Tensor


def draw(
    B: int, P: int, D: int, L: int, K: int, fused: bool, architecture: Architecture = "batchtopk"
) -> Inputs:
    """Random inputs, the same in each process."""
    generator = torch.Generator().manual_seed(0)
    names = tuple(f"blocks.{p}.resid_pre" for p in range(P))
    config = CrosscoderConfig(d_in=D, d_sae=L, k=K, hook_names=names, architecture=architecture)
    crosscoder = Crosscoder(config)
    crosscoder.initialise(torch.zeros(P, D), torch.randn(L, P, D, generator=generator))
    parameters = [parameter for parameter in crosscoder.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=0.0, fused=fused or None)
    return Inputs(crosscoder, optimiser, torch.randn(B, P, D, generator=generator))


def objective(inputs: Inputs, bfloat16: bool) -> Tensor:
    """The reconstruction loss as xtalk computes it."""
    return Objective([], {}, 0.0, 0.0, bfloat16)(inputs.crosscoder, inputs.x_BPD, NO_DEAD, 1.0)[0]


def dense(inputs: Inputs) -> Tensor:
    """The reconstruction loss from dense codes."""
    crosscoder, x_BPD = inputs.crosscoder, inputs.x_BPD
    pre_BL = torch.einsum("bpd,pdl->bl", x_BPD, crosscoder.W_enc) + crosscoder.b_enc
    kept = pre_BL.relu().flatten().topk(crosscoder.config.k * len(x_BPD))
    codes_BL = torch.zeros_like(pre_BL.flatten()).scatter(0, kept.indices, kept.values).view_as(pre_BL)
    rebuilt_BPD = torch.einsum("bl,lpd->bpd", codes_BL, crosscoder.W_dec) + crosscoder.b_dec
    return (x_BPD - rebuilt_BPD).square().sum((1, 2)).mean()


def step(inputs: Inputs, loss: Callable[[Inputs], Tensor]) -> None:
    """A training step with the given loss."""
    inputs.optimiser.zero_grad()
    loss(inputs).backward()
    torch.nn.utils.clip_grad_norm_(inputs.crosscoder.parameters(), 10.0)
    inputs.optimiser.step()


def floor(inputs: Inputs) -> None:
    """The encoder's products and the optimiser alone."""
    dtype = torch.bfloat16 if BFLOAT16 else torch.float32
    W_enc, x_BX = inputs.crosscoder.W_enc, inputs.x_BPD.flatten(1).to(dtype)
    with torch.no_grad():
        pre_BL = x_BX @ W_enc.flatten(0, 1).to(dtype)
        gradient = (x_BX.T @ pre_BL).view_as(W_enc).float()
    for parameter in inputs.optimiser.param_groups[0]["params"]:
        parameter.grad = gradient.view_as(parameter) if parameter.numel() == W_enc.numel() else None
    inputs.optimiser.step()


VARIANTS: Variants = ("xtalk", "dense", "floor")
_RUNS: dict[str, Callable[[Inputs], None]] = {
    "xtalk": lambda inputs: step(inputs, lambda i: objective(i, BFLOAT16)),
    "dense": lambda inputs: step(inputs, dense),
    "floor": floor,
}


def measure(variant: str, *, small: bool, latents: int) -> dict[str, float]:
    """One variant, with so many latents."""
    run, fused = _RUNS[variant], variant != "dense"
    inputs = draw(*((64, 5, 24, 96, 5) if small else (256, 17, 768, latents, 20)), fused)
    tiny = draw(8, 2, 3, 16, 2, fused)
    reference = dense if variant == "dense" else lambda i: objective(i, False)
    return work(lambda: run(tiny), lambda: run(inputs), lambda _: reference(inputs).item())

"""A crosscoder's training step, without penalties, by xtalk's own training code.

Against a straightforward dense one in plain PyTorch, with BatchTopK, Adam and a clipped gradient norm (paper:
17 hookpoints; wide: 16,384 latents, some 10 GB); and against other packages at one hookpoint, from the same
weights on the same activations (`benchmarks.peers`). Precision: float32, bfloat16, or what each does unless
asked: other packages compute in float32 on a CPU, and xtalk in bfloat16 where the CPU is fast at that.

`value` is the reconstruction loss at the first weights. The floor is one product with the encoder in that
precision and a step of Adam.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.paired import Variants
from benchmarks.step_inputs import BATCHES, Shape, activations, directions, shape_of
from benchmarks.timing import peak_bytes, work
from xtalk.crosscoder.config import Architecture, CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.training.config import TrainingConfig
from xtalk.training.objective import Objective
from xtalk.training.train import training_state, training_step

LR, CPU = 1e-3, torch.device("cpu")
Steps = tuple[Callable[[int], object], Callable[[], float]]
"""A step on batch number i, and the loss of the first."""


def drawn(shape: Shape, architecture: Architecture, device: torch.device) -> Crosscoder:
    """A crosscoder with random directions."""
    names = tuple(f"blocks.{p}.resid_pre" for p in range(shape.P))
    config = CrosscoderConfig(
        d_in=shape.D, d_sae=shape.L, k=shape.K, hook_names=names, architecture=architecture
    )
    crosscoder = Crosscoder(config)
    crosscoder.initialise(torch.zeros(shape.P, shape.D), directions(shape))
    return crosscoder.to(device)


def xtalk_steps(
    shape: Shape, architecture: Architecture, bfloat16: bool, device: torch.device = CPU
) -> Steps:
    """As xtalk trains, with the auxiliary loss on dead latents."""
    training = TrainingConfig(steps=10**6, batch_tokens=shape.B, lr=LR, warmup_steps=0, bfloat16=bfloat16)
    state = training_state(drawn(shape, architecture, device), training)
    objective, x_nBPD = Objective([], {}, 1.0, 0.0, bfloat16), activations(shape).to(device)
    first: list[float] = []

    def step(i: int) -> None:
        _, parts = training_step(state, objective, training, x_nBPD[i % BATCHES])
        first.append(parts["recon"].item())

    return step, lambda: first[0]


def dense_steps(shape: Shape, device: torch.device = CPU) -> Steps:
    """Plain PyTorch, with dense codes."""
    crosscoder, x_nBPD = drawn(shape, "batchtopk", device), activations(shape).to(device)
    optimiser = torch.optim.Adam([p for p in crosscoder.parameters() if p.requires_grad], lr=LR)
    first: list[float] = []

    def step(i: int) -> None:
        x_BPD = x_nBPD[i % BATCHES]
        pre_BL = torch.einsum("bpd,pdl->bl", x_BPD, crosscoder.W_enc) + crosscoder.b_enc
        kept = pre_BL.relu().flatten().topk(shape.K * shape.B)
        codes_BL = torch.zeros_like(pre_BL.flatten()).scatter(0, kept.indices, kept.values).view_as(pre_BL)
        rebuilt_BPD = torch.einsum("bl,lpd->bpd", codes_BL, crosscoder.W_dec) + crosscoder.b_dec
        loss = (x_BPD - rebuilt_BPD).square().sum((1, 2)).mean()
        first.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(crosscoder.parameters(), 10.0)
        optimiser.step()

    return step, lambda: first[0]


def floor_steps(shape: Shape, bfloat16: bool, device: torch.device = CPU) -> Steps:
    """What no training of this dictionary can do without."""
    rows_LX = directions(shape).flatten(1).to(device)
    parameters = [rows_LX.clone().requires_grad_() for _ in ("encoder", "decoder")]
    for parameter in parameters:
        parameter.grad = rows_LX
    optimiser = torch.optim.Adam(parameters, lr=LR, fused=True)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    x_nBX, encoder_LX = activations(shape).flatten(2).to(device, dtype), rows_LX.to(dtype)

    def step(i: int) -> None:
        F.linear(x_nBX[i % BATCHES], encoder_LX)
        optimiser.step()

    return step, lambda: 0.0


VARIANTS: Variants = ("xtalk", "dense", "floor")
AGAINST = {"saelens": "batchtopk", "sparsify": "topk"}
"""Other packages, and the nonlinearity that they are compared at."""


def measure(
    variant: str, *, small: bool, shape: str, precision: str, against: str = "dense"
) -> dict[str, float]:
    """One variant: seconds of a step."""
    before, sizes = peak_bytes(), shape_of(shape, small=small)
    default = TrainingConfig(steps=1, batch_tokens=1).uses_bfloat16(torch.device("cpu"))
    bfloat16 = {"float32": False, "bfloat16": True, "default": default}[precision]
    architecture: Architecture = "topk" if AGAINST.get(against) == "topk" else "batchtopk"
    if variant == "dense":
        step, value = dense_steps(sizes)
    elif variant == "floor":
        step, value = floor_steps(sizes, bfloat16)
    else:
        step, value = xtalk_steps(sizes, architecture, bfloat16)
    return work(
        lambda: [step(i) for i in range(3)],  # loops are loaded, memory is taken
        lambda: [step(i) for i in range(sizes.steps)],
        lambda _: value(),
        scale=1 / sizes.steps,
        before=before,
    )

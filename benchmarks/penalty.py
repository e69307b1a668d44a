"""The penalty forward and backward against gather-and-einsum, which materialises all contributions.

At the paper's size: 4 blocks, D 768, N 3072, L 1536, K 20. The floor is two products of 2 L D N per block.
`value` is the loss plus the norms of all gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.paired import Variants
from benchmarks.timing import work
from xtalk.codes import Codes
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.penalties import MlpTarget, sum_minus_max
from xtalk.models.activation_functions import GELU
from xtalk.models.mlp import MlpWeights


@dataclass(frozen=True)
class Inputs:
    """One crosscoder's directions at each block's MLP input, the MLPs, and a batch of codes."""

    decoders: list[Tensor]
    mlps: list[MlpWeights]
    codes: Codes

    def to(self, device: torch.device) -> "Inputs":
        """The same on a device."""
        latents, values, decoders = self.codes.latents, self.codes.values, self.decoders
        there = [tensor.detach().to(device).requires_grad_() for tensor in (*decoders, values)]
        mlps = [mlp.to(device) for mlp in self.mlps]
        return Inputs(there[:-1], mlps, Codes(latents.to(device), there[-1], self.codes.n_latents))


def draw(B: int, blocks: int, D: int, N: int, L: int, K: int) -> Inputs:
    """Random inputs."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[0] ** 0.5

    mlps = [MlpWeights(normal(D, N), normal(N), normal(N, D), normal(D), GELU) for _ in range(blocks)]
    latents_BK = torch.rand(B, L, generator=generator).topk(K, dim=1).indices
    values_BK = torch.rand(B, K, generator=generator)
    decoders = [normal(L, D).requires_grad_() for _ in range(blocks)]
    return Inputs(decoders, mlps, Codes(latents_BK, values_BK.requires_grad_(), L))


def fast(decoder_LD: Tensor, mlp: MlpWeights, codes: Codes) -> Tensor:
    """The penalty at one block as xtalk computes it."""
    bias_D = decoder_LD.new_zeros(decoder_LD.shape[1])
    return sum_minus_max(MlpContributions(decoder_LD, bias_D, codes, mlp), MlpTarget(torch.zeros(1, 1), 1.0))


def gather_einsum(decoder_LD: Tensor, mlp: MlpWeights, codes: Codes) -> Tensor:
    """The penalty at one block from all contributions."""
    p_BKN = torch.einsum("bkd,dn->bkn", decoder_LD[codes.latents], mlp.W_in) * codes.values[:, :, None]
    size_BKN = p_BKN.abs()
    return (size_BKN.sum(1) - size_BKN.max(1).values).mean()


def trained(inputs: Inputs, penalty: Callable[[Tensor, MlpWeights, Codes], Tensor]) -> list[Tensor]:
    """Mean over blocks and its gradients, as a training step computes them."""
    blocks = zip(inputs.decoders, inputs.mlps, strict=True)
    loss = torch.stack([penalty(decoder_LD, mlp, inputs.codes) for decoder_LD, mlp in blocks]).mean()
    gradients = torch.autograd.grad(loss, [*inputs.decoders, inputs.codes.values])
    return [loss.detach(), *gradients]


def floor(inputs: Inputs) -> list[Tensor]:
    """The two products per block alone."""
    return [
        (decoder_LD.detach() @ mlp.W_in) @ mlp.W_in.T
        for decoder_LD, mlp in zip(inputs.decoders, inputs.mlps, strict=True)
    ]


VARIANTS: Variants = ("xtalk", "gather_einsum", "floor")
_RUNS: dict[str, Callable[[Inputs], list[Tensor]]] = {
    "xtalk": lambda inputs: trained(inputs, fast),
    "gather_einsum": lambda inputs: trained(inputs, gather_einsum),
    "floor": floor,
}


def measure(variant: str, *, small: bool, batch: int) -> dict[str, float]:
    """One variant, on `batch` tokens."""
    run = _RUNS[variant]
    inputs = draw(*((64, 2, 24, 96, 48, 5) if small else (batch, 4, 768, 3072, 1536, 20)))
    tiny = draw(128 * torch.get_num_threads(), 1, 8, 16, 12, 3)
    return work(
        lambda: run(tiny),
        lambda: run(inputs),
        lambda found: sum(float(tensor.norm()) for tensor in found),
    )

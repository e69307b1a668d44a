"""A small finite-data problem: points in the plane, and the ring that each lies in."""

import torch

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.proofs.t1.network import FiniteNetwork, FiniteSizes
from xtalk.proofs.t1.training import axes_crosscoder

SIZES = FiniteSizes(inputs=2, classes=3, d_model=4, neurons=12)


def rings(points: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and the ring of each: below 0.5, below 1, beyond."""
    z_BI = torch.randn(points, 2, generator=torch.Generator().manual_seed(seed))
    return z_BI, (z_BI.norm(dim=1)[:, None] > torch.tensor([0.5, 1.0])).sum(1)


def untrained(seed: int = 0, k: int = 3) -> tuple[FiniteNetwork, Crosscoder]:
    generator = torch.Generator().manual_seed(seed)
    network = FiniteNetwork(SIZES, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network, axes_crosscoder(SIZES.d_model, k, generator)


def unchanged(z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return z

"""A crosscoder with weights that are all random, none trivial."""

import torch

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder

P, D, L, K = 3, 5, 16, 4
HOOKS = ("blocks.0.ln2", "blocks.1.ln2", "blocks.1.resid_post")


def small_crosscoder(architecture: str = "batchtopk", hook_names=HOOKS, seed: int = 0) -> Crosscoder:
    crosscoder = Crosscoder(
        CrosscoderConfig(d_in=D, d_sae=L, k=K, hook_names=hook_names, architecture=architecture)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        crosscoder.threshold.copy_(torch.rand(L, generator=generator))
    return crosscoder


def activations(tokens: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.randn(tokens, P, D, generator=torch.Generator().manual_seed(seed))

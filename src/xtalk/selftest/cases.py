"""Random MLPs and codes with everything that a batch may hold: padding, an empty token, a repeated pair."""

import torch
from torch import Tensor

from xtalk.codes import Codes
from xtalk.interactions.contributions import MlpContributions
from xtalk.models.activation_functions import GELU, GELU_TANH, RELU, SILU, ActivationFunction
from xtalk.models.mlp import MlpWeights
from xtalk.selftest.interaction_loops import Case

ACTIVATIONS = [RELU, GELU, GELU_TANH, SILU]
B, K, L, D, N = 4, 5, 9, 3, 7  # pairwise distinct


def random_mlp(
    activation: ActivationFunction,
    gated: bool,
    generator: torch.Generator,
    d: int = D,
    n: int = N,
    dtype: torch.dtype = torch.float64,
) -> MlpWeights:
    """Normal weights and biases."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    gate = (draw(d, n), draw(n)) if gated else (None, None)
    return MlpWeights(draw(d, n), draw(n), draw(n, d), draw(d), activation, *gate)


def random_case(
    activation: ActivationFunction, gated: bool, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Case:
    """A batch of `B` tokens.

    Token 1 has two padded slots, one of them naming an active latent; token 2 has no active latent.

    One activation is negative: no nonlinearity here makes such codes, and every formula holds for them.
    """
    generator = torch.Generator().manual_seed(seed)
    latents = torch.stack([torch.randperm(L, generator=generator)[:K] for _ in range(B)])
    new = next(latent for latent in range(L) if latent not in latents[0])
    latents[3] = torch.cat([latents[0, [1, 0, 4, 2]], torch.tensor([new])])  # pairs that occur again
    latents[1, 3] = latents[1, 0]
    values = 0.2 + torch.rand(B, K, generator=generator, dtype=dtype)
    values[0, 1] *= -1
    values[1, 3:] = 0
    values[2] = 0
    decoder = torch.randn(L, D, generator=generator, dtype=dtype)
    bias = torch.randn(D, generator=generator, dtype=dtype)
    return Case(decoder, bias, latents, values, random_mlp(activation, gated, generator, dtype=dtype))


def tied_case(activation: ActivationFunction, gated: bool, seed: int = 0) -> Case:
    """Small integers and powers of two, without rounding: many contributions are exactly equal in size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randint(-1, 2, shape, generator=generator).double()

    gate = (draw(D, N), draw(N) + 0.5) if gated else (None, None)
    mlp = MlpWeights(draw(D, N), draw(N) + 0.75, draw(N, D), draw(D), activation, *gate)
    latents = torch.stack([torch.randperm(L, generator=generator)[:K] for _ in range(B)])
    values = 2.0 ** torch.randint(0, 2, (B, K), generator=generator).double()
    return Case(draw(L, D), draw(D), latents, values, mlp)


def contributions(case: Case) -> MlpContributions:
    """The case for the fast paths."""
    codes = Codes(case.latents_BK, case.values_BK, len(case.decoder_LD))
    return MlpContributions(case.decoder_LD, case.bias_D, codes, case.mlp)

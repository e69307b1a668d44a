"""AuxK: dead latents learn to reconstruct what the live ones leave over (Gao et al. 2024)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.crosscoder.crosscoder import Crosscoder

_LEAK = 0.1


def auxiliary_loss(
    crosscoder: Crosscoder,
    pre_BL: Float[Tensor, "B L"],
    error_BPD: Float[Tensor, "B P D"],
    dead_L: Int[Tensor, "dead"],
) -> Float[Tensor, ""]:
    """Squared error per token of the residual rebuilt from dead latents, those of largest pre-activation.

    The pre-activations are taken before the nonlinearity, where dead latents are always 0. Twice as many dead
    latents as are active otherwise (2k) take part at each token. Their codes are leaky: a ReLU would leave
    those below zero, the truly dead, without gradient, and Adam needs only a small one.
    """
    k = min(len(dead_L), 2 * crosscoder.config.k)
    pre_Bd = pre_BL.index_select(1, dead_L)
    values_BK, slots_BK = pre_Bd.topk(k, dim=1, sorted=False)
    codes_Bd = torch.zeros_like(pre_Bd).scatter(1, slots_BK, F.leaky_relu(values_BK, _LEAK))
    rebuilt_BX = (codes_Bd @ crosscoder.W_dec.index_select(0, dead_L).flatten(1)).float()
    return (error_BPD.flatten(1) - rebuilt_BX).square().sum(1).mean()

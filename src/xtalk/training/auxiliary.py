"""AuxK: dead latents learn to reconstruct what the live ones leave over (Gao et al. 2024)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.pre_activations import ActiveRows
from xtalk.products import codes_times_rows

_LEAK = 0.1


def auxiliary_loss(
    crosscoder: Crosscoder,
    x_BPD: Float[Tensor, "B P D"],
    error_BPD: Float[Tensor, "B P D"],
    dead_L: Int[Tensor, "dead"],
) -> Float[Tensor, ""]:
    """Squared error per token of the residual rebuilt from dead latents, those of largest pre-activation.

    The pre-activations are taken before the nonlinearity, where dead latents are always 0. Twice as many dead
    latents as are active otherwise (2k) take part at each token. Their codes are leaky: a ReLU would leave
    those below zero, the truly dead, without gradient, and Adam needs only a small one.
    """
    encoder, k = crosscoder.active_rows(x_BPD), min(len(dead_L), 2 * crosscoder.config.k)
    dead = ActiveRows(encoder.x_BX, encoder.rows_LX[dead_L], encoder.bias_L[dead_L])
    latents_BK = dead_L[dead.all().topk(k, dim=1, sorted=False).indices]
    used_BK = torch.ones_like(latents_BK, dtype=torch.bool)
    values_BK = encoder.differentiable(encoder.at(latents_BK, used_BK), latents_BK, used_BK)
    codes = Codes(latents_BK, F.leaky_relu(values_BK, _LEAK), crosscoder.config.d_sae)
    rebuilt_BX = codes_times_rows(codes, crosscoder.W_dec.flatten(1))
    return (error_BPD.flatten(1) - rebuilt_BX).square().sum(1).mean()

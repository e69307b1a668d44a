"""AuxK: dead latents learn to reconstruct what the live ones leave over (Gao et al. 2024)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk import ranks
from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.pre_activations import ActiveRows
from xtalk.products import codes_times_rows
from xtalk.training.shares import ALL_TOKENS, Share

_LEAK = 0.1


def auxiliary_loss(
    crosscoder: Crosscoder,
    x_BPD: Float[Tensor, "B P D"],
    error_bPD: Float[Tensor, "b P D"],
    dead_L: Int[Tensor, "dead"],
    share: Share = ALL_TOKENS,
) -> Float[Tensor, ""]:
    """Squared error per token of the residual rebuilt from dead latents, those of largest pre-activation.

    dead_L: those of this rank, perhaps none; error_bPD: at the tokens of its share.

    The pre-activations are taken before the nonlinearity, where dead latents are always 0. Twice as many dead
    latents as are active otherwise (2k) take part at each token. Their codes are leaky: a ReLU would leave
    those below zero, the truly dead, without gradient, and Adam needs only a small one.
    """
    encoder, k = crosscoder.active_rows(x_BPD), 2 * crosscoder.config.k
    dead = ActiveRows(encoder.x_BX, encoder.rows_LX[dead_L], encoder.bias_L[dead_L])
    largest = dead.all().topk(min(k, len(dead_L)), dim=1, sorted=False)
    latents_BK, used_BK = dead_L[largest.indices], _largest_of_all(largest.values, k)
    values_BK = encoder.differentiable(encoder.at(latents_BK, used_BK), latents_BK, used_BK)
    codes = Codes(latents_BK, F.leaky_relu(values_BK, _LEAK), crosscoder.config.d_sae)
    rebuilt_bX = share.summed(codes_times_rows(codes, crosscoder.W_dec.flatten(1)))
    square_b = (error_bPD.flatten(1) - rebuilt_bX).square().sum(1)
    return square_b.mean() if len(square_b) else square_b.sum()


def _largest_of_all(values_BK: Float[Tensor, "B K"], k: int) -> Bool[Tensor, "B K"]:
    """Which of a rank's numbers are among the k largest of all ranks'."""
    all_BC, own = ranks.columns(values_BK)
    if all_BC.shape[1] <= k:
        return torch.ones_like(values_BK, dtype=torch.bool)
    places_Bk = all_BC.topk(k, dim=1, sorted=False).indices
    return torch.zeros_like(all_BC, dtype=torch.bool).scatter(1, places_Bk, True)[:, own].contiguous()

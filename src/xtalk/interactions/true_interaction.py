"""What latents' interaction at one MLP truly does to its output, beside the bound that `measures` gives.

The linear co-contribution inside an active neuron is no interaction: the mixed difference is 0 there.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import sound_bound


@torch.no_grad()
def mixed_difference(
    mlp: MlpContributions, tokens_Q: Int[Tensor, "Q"], i_Q: Int[Tensor, "Q"], j_Q: Int[Tensor, "Q"]
) -> Float[Tensor, "Q D"]:
    """D_ij of pairs of slots, through W_out: out(all) - out(without i) - out(without j) + out(without both).

    tokens_Q: each pair's token; i_Q, j_Q: two different slots of that token. Per neuron of an ordinary MLP
    this is phi(h) - phi(h - p_i) - phi(h - p_j) + phi(h - p_i - p_j). With a post-norm, as that moves the
    residual stream at the token's scale.
    Errors: XtalkError where i is j.
    """
    if bool((i_Q == j_Q).any()):
        raise XtalkError("a pair with one slot twice; expected two different slots of a token")
    without: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    latents, values = mlp.codes.latents, mlp.codes.values
    for path, total_BN in zip(mlp.paths, _totals(mlp), strict=True):
        p_i_QN, p_j_QN = (path.M_LN[latents[tokens_Q, s]] * values[tokens_Q, s][:, None] for s in (i_Q, j_Q))
        all_QN = total_BN[tokens_Q]
        without.append((all_QN, all_QN - p_i_QN, all_QN - p_j_QN, all_QN - p_i_QN - p_j_QN))
    both, no_i, no_j, neither = (mlp.activations(kept, tokens_Q) for kept in zip(*without, strict=True))
    differences = (both - no_i) - (no_j - neither)  # in this order exactly 0 where p_i or p_j is
    return mlp.moved(differences @ mlp.mlp.W_out, tokens_Q)


@torch.no_grad()
def dominant_residual(mlp: MlpContributions) -> Float[Tensor, "B D"]:
    """MLP(n^) - MLP_dominant(n^), signed: W_out times phi(h_k) - phi(c_k + p_k*) of each neuron.

    With a post-norm, as that moves the residual stream at the token's scale.
    """
    change_BN = mlp.activations(_totals(mlp)) - mlp.activations(mlp.dominant)
    return mlp.moved(change_BN @ mlp.mlp.W_out)


@torch.no_grad()
def tightness(mlp: MlpContributions) -> Float[Tensor, "B"]:
    """The sound bound over the norm of the true residual, per token; 1 is exact.

    inf where only the residual is 0, 1 where both are, as at a token with one active latent.
    """
    bound_B, true_B = sound_bound(mlp), dominant_residual(mlp).norm(dim=1)
    return torch.where((bound_B == 0) & (true_B == 0), 1.0, bound_B / true_B)


def _totals(mlp: MlpContributions) -> tuple[Float[Tensor, "B N"], ...]:
    """`mlp.totals` from the products that the dominant contribution is one of: equal to it if alone."""
    return tuple(path.total() for path in mlp.paths)

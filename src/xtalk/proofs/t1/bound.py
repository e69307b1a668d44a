"""The margins that theorem T1 certifies from tables (docs/proofs/theory.md), as a differentiable function."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.codes import Codes
from xtalk.proofs.t1.network import FiniteNetwork

_TINY = 1e-9  # under roots, whose gradient at 0 is infinite


def table_margins(
    network: FiniteNetwork,
    base_D: Float[Tensor, "D"],
    features_LD: Float[Tensor, "L D"],
    codes: Codes,
    x_BD: Float[Tensor, "B D"],
    labels_B: Int[Tensor, "B"],
) -> Float[Tensor, "B C"]:
    """Lower bounds on the margins of the labels' logits over every logit, MLP inputs x explained by codes.

    Exact: the direct path, each feature's effect alone, the residual's to first order. Charged: pairs of
    features, features with the residual, and the residual with itself, by the curvature of the activation.
    The label's own margin is minus the charge. Interpolation between table entries is not charged.
    """
    phi, out_NC = network.activation, network.w_out @ network.unembed
    spread_N = out_NC.amax(1) - out_NC.amin(1)
    c_N = base_D @ network.w_in + network.b_in
    g_LN = features_LD @ network.w_in
    p_BKN = codes.values[..., None] * g_LN[codes.latents]
    residual_BD = x_BD - base_D - torch.einsum("bk,bkd->bd", codes.values, features_LD[codes.latents])
    r_BN = residual_BD @ network.w_in

    active_BN = phi(c_N) + (phi(c_N + p_BKN) - phi(c_N)).sum(1) + network.slope(c_N) * r_BN
    logits_BC = network.logits(x_BD, active_BN @ network.w_out + network.b_out)

    squares_BK = p_BKN.square() @ spread_N
    pairs_B = (p_BKN.abs().sum(1).square() @ spread_N - squares_BK.sum(1)) / 2
    size_B = (r_BN.square() @ spread_N + _TINY).sqrt()
    spans_B = (squares_BK + _TINY).sqrt().sum(1)
    crosstalk_B = pairs_B + spans_B * size_B + size_B.square() / 2
    label_logit_B1 = logits_BC.gather(1, labels_B[:, None])
    return label_logit_B1 - logits_BC - phi.curvature * crosstalk_B[:, None]


def margin_loss(
    margins_BC: Float[Tensor, "B C"], labels_B: Int[Tensor, "B"], gain: float
) -> Float[Tensor, ""]:
    """The cross-entropy of margins: log(1 + sum over wrong answers of exp(-gain margin)) / gain."""
    exponents_BC = (-gain * margins_BC).scatter(1, labels_B[:, None], 0.0)  # the 1 in the sum
    return exponents_BC.logsumexp(1).mean() / gain

"""The paper's penalty on one path, sum_k weight_k (sum_i |p_ki| - max_i |p_ki|), its gradient by hand.

With r_i = sum_k weight_k |M_ik|, sum_k weight_k sum_i |p_ki| = sum_i |f_i| r_i; without the dominant
contributions, r_i lacks the neurons that i dominates. So neither value nor gradient needs a tensor of
contributions: the cost is little above the product that makes M and the one back.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.interactions import kernels


class _SumMinusMax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, M_LN: Tensor, values_BK: Tensor, latents_BK: Tensor, slots_BN: Tensor, weight_N: Tensor
    ) -> Tensor:
        others_BK = _others(M_LN, latents_BK, slots_BN, weight_N)
        ctx.save_for_backward(M_LN, values_BK, latents_BK, slots_BN, weight_N, others_BK)
        return (values_BK.abs() * others_BK).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        M_LN, values_BK, latents_BK, slots_BN, weight_N, others_BK = ctx.saved_tensors
        (grad,) = grad_outputs
        dM_LN = _gradient(M_LN, latents_BK, values_BK.abs(), slots_BN, weight_N * grad)
        return dM_LN, others_BK * values_BK.sign() * grad, None, None, None


def sum_minus_max_on_path(
    M_LN: Float[Tensor, "L N"],
    values_BK: Float[Tensor, "B K"],
    latents_BK: Int[Tensor, "B K"],
    slots_BN: Int[Tensor, "B N"],
    weight_N: Float[Tensor, "N"],
) -> Float[Tensor, ""]:
    """Sum over tokens and neurons of weight_k sum_i |p_ki| without slot slots[b, k]'s |p_ki|.

    Differentiable in M and values, once.
    """
    return _SumMinusMax.apply(M_LN, values_BK, latents_BK, slots_BN, weight_N)


def _others(M_LN: Tensor, latents_BK: Tensor, slots_BN: Tensor, weight_N: Tensor) -> Tensor:
    """(B, K): the sum of weight_k |M_ik| over the neurons k that slot i does not dominate."""
    if M_LN.device.type == "cpu":
        return kernels.others(M_LN, latents_BK, slots_BN, weight_N)
    return _others_by_tensors(M_LN, latents_BK, slots_BN, weight_N)


def _others_by_tensors(M_LN: Tensor, latents_BK: Tensor, slots_BN: Tensor, weight_N: Tensor) -> Tensor:
    dominated_BN = M_LN.gather(0, latents_BK.gather(1, slots_BN)).abs() * weight_N
    row_L = (M_LN.abs() * weight_N).sum(1)  # no product with weight_N: autocast would round it
    return row_L[latents_BK].scatter_add_(1, slots_BN, -dominated_BN)


def _gradient(
    M_LN: Tensor, latents_BK: Tensor, size_BK: Tensor, slots_BN: Tensor, weight_N: Tensor
) -> Tensor:
    """(L, N): sign(M_ik) weight_k times the sum of |f_i| over the tokens at which i does not dominate k."""
    active_L = size_BK.new_zeros(len(M_LN)).index_add_(0, latents_BK.flatten(), size_BK.flatten())
    if M_LN.device.type == "cpu":
        return kernels.others_gradient(M_LN, latents_BK, size_BK, slots_BN, weight_N, active_L)
    return _gradient_by_tensors(M_LN, latents_BK, size_BK, slots_BN, weight_N, active_L)


def _gradient_by_tensors(
    M_LN: Tensor, latents_BK: Tensor, size_BK: Tensor, slots_BN: Tensor, weight_N: Tensor, active_L: Tensor
) -> Tensor:
    dominant_BN = size_BK.gather(1, slots_BN) * weight_N
    gradient_LN = torch.outer(active_L, weight_N)
    return gradient_LN.scatter_add_(0, latents_BK.gather(1, slots_BN), -dominant_BN).mul_(M_LN.sign())

"""From pre-activations to sparse codes: ReLU, TopK, BatchTopK, JumpReLU.

BatchTopK only trains: it compares tokens with one another, so a token's code would depend on its batch.
Inference goes through a threshold (`above_threshold`), calibrated in training.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.codes import Codes, codes_where

_JUMP_BANDWIDTH = 0.05


def topk(pre_BL: Float[Tensor, "B L"], k: int) -> Codes:
    """The k largest positive pre-activations of each token."""
    values_BK, latents_BK = pre_BL.topk(k, dim=1, sorted=False)
    return Codes(latents_BK, values_BK.relu(), pre_BL.shape[1])


def batch_topk(pre_BL: Float[Tensor, "B L"], k: int) -> Codes:
    """The k * B largest positive pre-activations of the batch (Bussmann et al. 2024); training only."""
    cut = batch_topk_cut(pre_BL.detach(), k).clamp(min=0)
    return codes_where(pre_BL.detach() > cut, pre_BL)


def batch_topk_cut(pre_BL: Float[Tensor, "B L"], k: int) -> Float[Tensor, ""]:
    """The largest pre-activation that batch_topk leaves out: k * B entries lie above it, fewer with ties."""
    return largest_but(pre_BL.flatten(), k * len(pre_BL))


def largest_but(values_N: Float[Tensor, "N"], kept: int) -> Float[Tensor, ""]:
    """The largest of the values that remain when the `kept` largest are taken away; 0 if none remain."""
    rank = len(values_N) - kept  # from below, the smallest being 1
    if rank < 1:
        return values_N.new_zeros(())
    if values_N.device.type == "cpu":  # several times faster than kthvalue; the same value
        return torch.from_numpy(np.partition(values_N.numpy(), rank - 1)[rank - 1 : rank])[0]
    return values_N.kthvalue(rank).values


def above_threshold(pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"]) -> Codes:
    """The positive pre-activations above their latent's threshold: JumpReLU without a gradient to it."""
    return codes_where((pre_BL > threshold_L) & (pre_BL > 0), pre_BL)


class _Jump(torch.autograd.Function):
    """1 where pre > threshold, with a pseudo-derivative in the threshold (Rajamanoharan et al. 2024)."""

    @staticmethod
    def forward(ctx, pre_BL: Tensor, threshold_L: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(pre_BL, threshold_L)
        return (pre_BL > threshold_L).to(pre_BL.dtype)

    @staticmethod
    def backward(ctx, grad_BL: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        pre_BL, threshold_L = ctx.saved_tensors
        near_BL = (pre_BL - threshold_L).abs() < _JUMP_BANDWIDTH / 2
        return None, -(grad_BL * near_BL).sum(0) / _JUMP_BANDWIDTH


def jumprelu(
    pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"]
) -> tuple[Codes, Float[Tensor, "B"]]:
    """JumpReLU codes for training, and each token's differentiable number of active latents.

    Latents just under their threshold have slots with value 0: the thresholds' gradient needs what they would
    do.
    """
    gate_BL = _Jump.apply(pre_BL, threshold_L)
    reached_BL = (pre_BL > threshold_L - _JUMP_BANDWIDTH / 2) & (pre_BL > 0)
    return codes_where(reached_BL, pre_BL.relu() * gate_BL), gate_BL.sum(1)

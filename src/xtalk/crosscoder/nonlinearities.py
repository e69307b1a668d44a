"""From pre-activations to sparse codes: ReLU, TopK, BatchTopK, JumpReLU, one object each.

A new nonlinearity is a class and an entry of `NONLINEARITIES` in this file, and nothing elsewhere.
BatchTopK only trains: it compares tokens with one another, so a token's code would depend on its batch.
Inference goes through a threshold (`above_threshold`), calibrated in training.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.codes import Codes, codes_where
from xtalk.errors import XtalkError

_JUMP_BANDWIDTH = 0.05


@dataclass(frozen=True)
class Nonlinearity(ABC):
    """What a crosscoder's architecture decides: codes in training and at inference, and what keeps them few.

    infers_by_threshold, infers_by_k: inference needs the threshold (L) that training found, or k active
    latents per token. trains_threshold: the threshold
    is a trained parameter, which starts at `first_threshold`. calibrated_before, calibrated_after: training
    sets the threshold so that k latents per token are active, before its first step or after its last.
    needs_sparsity_loss: nothing but a loss keeps the codes sparse.
    """

    name: str
    infers_by_threshold: bool = False
    infers_by_k: bool = False
    trains_threshold: bool = False
    calibrated_before: bool = False
    calibrated_after: bool = False
    needs_sparsity_loss: bool = False
    first_threshold: float = 0.0

    def encode(self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int) -> Codes:
        """The codes at inference, each token by itself."""
        return above_threshold(pre_BL, threshold_L)

    @abstractmethod
    def encode_for_training(
        self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        """The codes that training sees, and their mean L0, differentiable where the threshold is trained."""

    def sparsity_loss(
        self, codes: Codes, l0: Float[Tensor, ""], norm_L: Float[Tensor, "L"], k: int
    ) -> Float[Tensor, ""]:
        """L1: the activations per token, each times the norm of its decoder direction."""
        return (codes.values * norm_L[codes.latents]).sum(1).mean()


class _Relu(Nonlinearity):
    def encode_for_training(
        self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        return _with_l0(codes_where(pre_BL.detach() > 0, pre_BL))


class _TopK(Nonlinearity):
    def encode(self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int) -> Codes:
        return topk(pre_BL, k)

    def encode_for_training(
        self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        return _with_l0(topk(pre_BL, k))


class _BatchTopK(Nonlinearity):
    def encode_for_training(
        self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        return _with_l0(batch_topk(pre_BL, k))


class _JumpRelu(Nonlinearity):
    def encode_for_training(
        self, pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        codes, active_B = jumprelu(pre_BL, threshold_L)
        return codes, active_B.mean()

    def sparsity_loss(
        self, codes: Codes, l0: Float[Tensor, ""], norm_L: Float[Tensor, "L"], k: int
    ) -> Float[Tensor, ""]:
        """The squared relative distance of L0 from k."""
        return (l0 / k - 1).square()


RELU = _Relu("relu", needs_sparsity_loss=True)
TOPK = _TopK("topk", infers_by_k=True)
BATCHTOPK = _BatchTopK("batchtopk", infers_by_threshold=True, calibrated_after=True)
JUMPRELU = _JumpRelu(
    "jumprelu",
    infers_by_threshold=True,
    trains_threshold=True,
    calibrated_before=True,  # from k active latents on, the sparsity loss has little left to do
    needs_sparsity_loss=True,
    first_threshold=0.1,
)
NONLINEARITIES = {one.name: one for one in (RELU, TOPK, BATCHTOPK, JUMPRELU)}


def nonlinearity(name: str) -> Nonlinearity:
    """The nonlinearity of that name. Errors: XtalkError names those known."""
    if name not in NONLINEARITIES:
        raise XtalkError(f"unknown nonlinearity {name!r}; expected one of {', '.join(NONLINEARITIES)}")
    return NONLINEARITIES[name]


def _with_l0(codes: Codes) -> tuple[Codes, Float[Tensor, ""]]:
    return codes, (codes.values.detach() > 0).sum(1).float().mean()


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

"""From pre-activations to sparse codes: ReLU, TopK, BatchTopK, JumpReLU, one object each.

A new nonlinearity is a class and an entry of `NONLINEARITIES` in this file, and nothing elsewhere.
BatchTopK only trains: it compares tokens with one another, so a token's code would depend on its batch.
Inference goes through a threshold (`above_threshold`), calibrated in training.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk import ranks
from xtalk.codes import Codes
from xtalk.crosscoder.pre_activations import PreActivations, largest_but
from xtalk.errors import XtalkError

_JUMP_BANDWIDTH = 0.05


@dataclass(frozen=True)
class Nonlinearity(ABC):
    """What a crosscoder's architecture decides: codes in training and at inference, and what keeps them few.

    infers_by_threshold, infers_by_k: inference needs the threshold (L) that training found, or k active
    latents per token. trains_threshold: the threshold
    is a trained parameter, which starts at `first_threshold`. calibrated_before, calibrated_after: training
    sets the threshold so that k latents per token are active, before its first step or after its last.
    keeps_k: training keeps about k latents per token active from the first step on.
    needs_sparsity_loss: nothing but a loss keeps the codes sparse.
    """

    name: str
    infers_by_threshold: bool = False
    infers_by_k: bool = False
    trains_threshold: bool = False
    calibrated_before: bool = False
    calibrated_after: bool = False
    keeps_k: bool = False
    needs_sparsity_loss: bool = False
    first_threshold: float = 0.0

    def encode(self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int) -> Codes:
        """The codes at inference, each token by itself."""
        return above_threshold(pre, threshold_L, k)

    @abstractmethod
    def encode_for_training(
        self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        """The codes that training sees, and their mean L0, differentiable where the threshold is trained."""

    def sparsity_loss(
        self, codes: Codes, l0: Float[Tensor, ""], norm_L: Float[Tensor, "L"], k: int
    ) -> Float[Tensor, ""]:
        """L1: the activations per token, each times the norm of its decoder direction."""
        return (codes.values * norm_L[codes.latents]).sum(1).mean()


class _Relu(Nonlinearity):
    def encode_for_training(
        self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        return _with_l0(above_threshold(pre, torch.zeros_like(threshold_L), k))


class _TopK(Nonlinearity):
    def encode(self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int) -> Codes:
        return topk(pre, k)

    def encode_for_training(
        self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        return _with_l0(topk(pre, k))


class _BatchTopK(Nonlinearity):
    def encode_for_training(
        self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        return _with_l0(batch_topk(pre, k))


class _JumpRelu(Nonlinearity):
    def encode_for_training(
        self, pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int
    ) -> tuple[Codes, Float[Tensor, ""]]:
        codes, active_B = jumprelu(pre, threshold_L, k)
        return codes, active_B.mean()

    def sparsity_loss(
        self, codes: Codes, l0: Float[Tensor, ""], norm_L: Float[Tensor, "L"], k: int
    ) -> Float[Tensor, ""]:
        """The squared relative distance of L0 from k."""
        return (l0 / k - 1).square()


RELU = _Relu("relu", needs_sparsity_loss=True)
TOPK = _TopK("topk", infers_by_k=True, keeps_k=True)
BATCHTOPK = _BatchTopK("batchtopk", infers_by_threshold=True, calibrated_after=True, keeps_k=True)
JUMPRELU = _JumpRelu(
    "jumprelu",
    infers_by_threshold=True,
    trains_threshold=True,
    keeps_k=True,
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


def topk(pre: PreActivations, k: int) -> Codes:
    """The k largest positive pre-activations of each token, over the latents of all ranks."""
    slots = pre.largest(k, of_batch=False)
    all_BC, own = ranks.columns(slots.values_BC)
    places_BK = all_BC.topk(min(k, all_BC.shape[1]), dim=1).indices
    kept_BC = torch.zeros_like(all_BC, dtype=torch.bool).scatter(1, places_BK, True)
    return pre.codes(slots.keep(kept_BC[:, own]))


def batch_topk(pre: PreActivations, k: int) -> Codes:
    """The k * B largest positive pre-activations of the batch, of all ranks' latents (Bussmann et al. 2024).

    Training only. Those above the largest that is left out: fewer where there are ties.
    """
    slots = pre.largest(k, of_batch=True)
    cut = largest_but(ranks.gathered(slots.values_BC[slots.used_BC]), k * len(slots.values_BC))
    return pre.codes(slots.keep(slots.values_BC > cut))


def above_threshold(pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int) -> Codes:
    """The positive pre-activations above their latent's threshold: JumpReLU without a gradient to it.

    k: how many there are, roughly.
    """
    slots = pre.reaching(threshold_L.detach(), 4 * k)
    return pre.codes(slots.keep(slots.values_BC > threshold_L[slots.latents_BC]))


class _Jump(torch.autograd.Function):
    """1 where pre > threshold, with a pseudo-derivative in the threshold (Rajamanoharan et al. 2024)."""

    @staticmethod
    def forward(ctx, pre_BK: Tensor, threshold_BK: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(pre_BK, threshold_BK)
        return (pre_BK > threshold_BK).to(pre_BK.dtype)

    @staticmethod
    def backward(ctx, grad_BK: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        pre_BK, threshold_BK = ctx.saved_tensors
        near_BK = (pre_BK - threshold_BK).abs() < _JUMP_BANDWIDTH / 2
        return None, -(grad_BK * near_BK) / _JUMP_BANDWIDTH


def jumprelu(
    pre: PreActivations, threshold_L: Float[Tensor, "L"], k: int
) -> tuple[Codes, Float[Tensor, "B"]]:
    """JumpReLU codes for training, and each token's differentiable number of active latents.

    Latents just under their threshold have slots with value 0: the thresholds' gradient needs what they would
    do. k: how many are active, roughly.
    """
    slots = pre.reaching(threshold_L.detach() - _JUMP_BANDWIDTH / 2, 4 * k)
    codes = pre.codes(slots)
    gate_BK = _Jump.apply(codes.values, threshold_L[slots.latents_BC]) * slots.used_BC
    return Codes(codes.latents, codes.values.relu() * gate_BK, codes.n_latents), gate_BK.sum(1)

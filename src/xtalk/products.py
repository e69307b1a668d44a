"""Products of sparse codes with rows, made from active rows alone, in value and in gradient.

With codes C of B tokens (B, L), K of them active, and rows R (L, X): C R decodes; x R^T at the active latents
encodes; and C^T x is the gradient to the rows of both. Each costs B K X instead of B L X. On CPUs they are
loops, elsewhere gathers; both sum in a fixed order, so that the same inputs give the same bytes.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from xtalk import product_loops
from xtalk.codes import Codes

_CHUNK_ELEMENTS = 1 << 26  # of a (tokens, K, X) intermediate off the CPU: 256 MB in float32
_DENSE_BELOW = {"cpu": 8}
_DENSE_BELOW_ELSEWHERE = 128


def active_rows_pay(active: float, n_latents: int, device: torch.device) -> bool:
    """Whether products with `active` of the latents per token are faster from active rows than densely.

    The one rule for this. On CPUs the crossover was measured (docs/performance.md); on GPUs it is taken from
    what others report, and was not.
    """
    return n_latents >= _DENSE_BELOW.get(device.type, _DENSE_BELOW_ELSEWHERE) * active


def codes_times_rows(codes: Codes, rows_LX: Float[Tensor, "L X"]) -> Float[Tensor, "B X"]:
    """sum_i f_i R_i of each token, differentiable once in the codes' values and the rows."""
    return _CodesTimesRows.apply(codes.values, codes.latents, rows_LX)


@torch.no_grad()
def dots(
    x_BX: Float[Tensor, "B X"],
    rows_LX: Float[Tensor, "L X"],
    latents_BK: Int[Tensor, "B K"],
    used_BK: Bool[Tensor, "B K"],
) -> Float[Tensor, "B K"]:
    """<x, R_i> of each token at its latents, 0 in slots that are not used; without a graph."""
    if _looped(rows_LX):
        return product_loops.dots(x_BX, rows_LX, latents_BK, used_BK)
    step = max(1, _CHUNK_ELEMENTS // max(1, latents_BK.shape[1] * rows_LX.shape[1]))
    chunks = zip(x_BX.split(step), latents_BK.split(step), strict=True)
    return torch.cat([(rows_LX[latents] @ x[:, :, None])[:, :, 0] for x, latents in chunks]) * used_BK


def affine_dots(
    values_BK: Float[Tensor, "B K"],
    x_BX: Float[Tensor, "B X"],
    rows_LX: Float[Tensor, "L X"],
    bias_L: Float[Tensor, "L"],
    latents_BK: Int[Tensor, "B K"],
    used_BK: Bool[Tensor, "B K"],
) -> Float[Tensor, "B K"]:
    """<x, R_i> + bias_i, whose values `values_BK` are known: with their gradients to x, rows and bias, once.

    Where a slot is not used the value is 0, without a gradient.
    """
    return _AffineDots.apply(values_BK, x_BX, rows_LX, bias_L, latents_BK, used_BK)


class _CodesTimesRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_BK: Tensor, latents_BK: Tensor, rows_LX: Tensor) -> Tensor:
        ctx.save_for_backward(values_BK, latents_BK, rows_LX)
        return _sum(latents_BK, values_BK.to(rows_LX.dtype), rows_LX)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, None, Tensor | None]:
        values_BK, latents_BK, rows_LX = ctx.saved_tensors
        grad_BX = grad_outputs[0].contiguous()
        to_values = to_rows = None
        if ctx.needs_input_grad[0]:
            used_BK = (values_BK != 0) | (latents_BK != 0)  # padding names latent 0, but for the first slot
            used_BK[:, :1] = True
            to_values = dots(grad_BX, rows_LX, latents_BK, used_BK).to(values_BK.dtype)
        if ctx.needs_input_grad[2]:
            to_rows = _transposed(latents_BK, values_BK.to(rows_LX.dtype), grad_BX, len(rows_LX))
        return to_values, None, to_rows


class _AffineDots(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values_BK: Tensor,
        x_BX: Tensor,
        rows_LX: Tensor,
        bias_L: Tensor,
        latents_BK: Tensor,
        used_BK: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(x_BX, rows_LX, latents_BK, used_BK)
        return values_BK * used_BK

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        x_BX, rows_LX, latents_BK, used_BK = ctx.saved_tensors
        grad_BK, L = grad_outputs[0] * used_BK, len(rows_LX)
        to_x = to_rows = to_bias = None
        if ctx.needs_input_grad[1]:
            to_x = _sum(latents_BK, grad_BK, rows_LX)
        if ctx.needs_input_grad[2]:
            to_rows = _transposed(latents_BK, grad_BK, x_BX, L)
        if ctx.needs_input_grad[3]:
            to_bias = _transposed(latents_BK, grad_BK, x_BX.new_ones(len(x_BX), 1), L)[:, 0]
        return None, to_x, to_rows, to_bias, None, None


def _looped(rows: Tensor) -> bool:
    return rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64)


def _sum(latents_BK: Tensor, values_BK: Tensor, rows_LX: Tensor) -> Tensor:
    if _looped(rows_LX):
        return product_loops.codes_times_rows(latents_BK, values_BK, rows_LX)
    return F.embedding_bag(latents_BK, rows_LX, per_sample_weights=values_BK, mode="sum")


def _transposed(latents_BK: Tensor, values_BK: Tensor, x_BX: Tensor, n_latents: int) -> Tensor:
    """(L, X): each latent's sum of x where it is active."""
    if _looped(x_BX):
        return product_loops.codes_transposed_times(latents_BK, values_BK, x_BX, n_latents)
    latents_Z, order_Z = latents_BK.flatten().sort(stable=True)
    starts_L = torch.searchsorted(latents_Z, torch.arange(n_latents, device=latents_Z.device))
    weights_Z, tokens_Z = values_BK.flatten()[order_Z], order_Z // latents_BK.shape[1]
    return F.embedding_bag(tokens_Z, x_BX, starts_L, per_sample_weights=weights_Z, mode="sum")

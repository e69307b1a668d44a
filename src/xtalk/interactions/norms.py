"""Pair terms of LayerNorm and RMSNorm: features interact through the scale that all of them make.

At the token's own scale s(x) a norm is linear: x's features contribute `P f_i d_i / s(x) * weight`, which add
up exactly. Beyond that a removed feature changes the scale for all others, and the mixed difference

    D_ij = norm(x) - norm(x - a) - norm(x - b) + norm(x - a - b),    a = f_i d_i, b = f_j d_j,

is that change of scale alone: with y = Px, u = Pa, v = Pb and 1/s, 1/s_a, 1/s_b, 1/s_ab the inverse scales,
D_ij = weight * (y (1/s - 1/s_a - 1/s_b + 1/s_ab) + u (1/s_a - 1/s_ab) + v (1/s_b - 1/s_ab)).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.codes import Codes, of_like_width
from xtalk.models.norms import NormWeights

_ELEMENTS = 1 << 17  # of a (tokens, K, K) intermediate: 1 MB, which caches hold


@torch.no_grad()
def linear_parts(
    norm: NormWeights, x_BD: Float[Tensor, "B D"], decoder_LD: Float[Tensor, "L D"], codes: Codes
) -> Float[Tensor, "B K D"]:
    """What each active feature contributes to the norm's output at the token's own scale."""
    parts_BKD = decoder_LD[codes.latents] * codes.values[:, :, None]
    return norm.centre(parts_BKD) / norm.scale(x_BD)[:, None, None] * norm.weight


@torch.no_grad()
def scale_change_norms(
    norm: NormWeights, x_BD: Float[Tensor, "B D"], decoder_LD: Float[Tensor, "L D"], codes: Codes
) -> Float[Tensor, "B K K"]:
    """||D_ij|| of every two slots of each token, from inner products alone; 0 on the diagonal. float64."""
    B, K = codes.latents.shape
    norms_BKK = torch.zeros(B, K, K, dtype=torch.float64, device=x_BD.device)
    for b, k in of_like_width(codes.used, _ELEMENTS):
        parts_bkD = decoder_LD[codes.latents[b, :k]] * codes.values[b, :k, None]
        norms_BKK[b, :k, :k] = _scale_change_norms(norm, x_BD[b].double(), parts_bkD.double())
    norms_BKK.diagonal(dim1=1, dim2=2).zero_()
    return norms_BKK


def _scale_change_norms(
    norm: NormWeights, x_BD: Float[Tensor, "B D"], parts_BKD: Float[Tensor, "B K D"]
) -> Float[Tensor, "B K K"]:
    D, y_BD, u_BKD = x_BD.shape[1], norm.centre(x_BD), norm.centre(parts_BKD)
    square_B, along_BK, across_BKK = _products(y_BD, u_BKD)
    sizes_BK = across_BKK.diagonal(dim1=1, dim2=2)
    one_BK = square_B[:, None] - 2 * along_BK + sizes_BK
    both_BKK = one_BK[:, :, None] + one_BK[:, None] - square_B[:, None, None] + 2 * across_BKK
    s, s_one, s_both = ((q.clamp(min=0) / D + norm.eps).rsqrt() for q in (square_B, one_BK, both_BKK))
    of_y = s[:, None, None] - s_one[:, :, None] - s_one[:, None] + s_both
    of_i, of_j = s_one[:, :, None] - s_both, s_one[:, None] - s_both
    weight_D = norm.weight.double()
    square_B, along_BK, across_BKK = _products(y_BD * weight_D, u_BKD * weight_D)
    sizes_BK = across_BKK.diagonal(dim1=1, dim2=2)
    squared = of_y**2 * square_B[:, None, None] + 2 * of_i * of_j * across_BKK
    squared += of_i**2 * sizes_BK[:, :, None] + of_j**2 * sizes_BK[:, None]
    squared += 2 * of_y * (of_i * along_BK[:, :, None] + of_j * along_BK[:, None])
    return squared.clamp(min=0).sqrt()


def _products(y_BD: Tensor, u_BKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """<y, y>, <y, u_i> and <u_i, u_j> of each token."""
    along_BK = (u_BKD @ y_BD[:, :, None])[:, :, 0]
    return y_BD.square().sum(1), along_BK, u_BKD @ u_BKD.transpose(1, 2)

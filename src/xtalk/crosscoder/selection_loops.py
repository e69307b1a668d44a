"""The loops of `pre_activations` on CPUs: the largest of many numbers, in two passes over them.

The K-th largest of the maxima of 2 K groups is at most the K-th largest number, and little below it. So one
pass finds the maxima, and one gathers what reaches the bound: some 1.4 K numbers, among which to choose.
bfloat16 comes as int16, whose order is the same for positive numbers.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from xtalk.compiling import compiled, in_threads

_Array = NDArray[Any]
_BLOCK = 64  # numbers, of which mostly none reaches the bound


@compiled()
def _group_maxima(pre_BL: _Array, maxima_BG: _Array) -> None:
    L, G = pre_BL.shape[1], maxima_BG.shape[1]
    for b in range(len(pre_BL)):
        maxima_G = maxima_BG[b]
        for start in range(0, L, G):
            group_G = pre_BL[b, start : start + G]
            for g in range(len(group_G)):
                if group_G[g] > maxima_G[g]:
                    maxima_G[g] = group_G[g]


@compiled()
def _reaching(pre_BL: _Array, bound_B: _Array, bound_L: _Array, latents_BC: _Array, counts_B: _Array) -> None:
    L, C = pre_BL.shape[1], latents_BC.shape[1]
    for b in range(len(pre_BL)):
        bound, count = bound_B[b], 0
        for start in range(0, L, _BLOCK):
            pre, bounds, any_here = pre_BL[b, start : start + _BLOCK], bound_L[start : start + _BLOCK], False
            for i in range(len(pre)):
                any_here |= (pre[i] >= bound) & (pre[i] >= bounds[i])
            if any_here:
                for i in range(len(pre)):
                    if (pre[i] >= bound) & (pre[i] >= bounds[i]):
                        if count < C:
                            latents_BC[b, count] = start + i
                        count += 1
        counts_B[b] = count


def _array(tensor: Tensor) -> _Array:
    """bfloat16 as int16, which numpy has."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def group_maxima(pre_BL: Float[Tensor, "B L"], groups: int) -> Float[Tensor, "B G"]:
    """The largest positive number of each group, 0 where there is none; latent l is in group l mod G."""
    pre, maxima_BG = _array(pre_BL), pre_BL.new_zeros(len(pre_BL), groups)
    maxima = _array(maxima_BG)

    def run(b: slice) -> None:
        _group_maxima(pre[b], maxima[b])

    in_threads(run, len(pre))
    return maxima_BG


def reaching(
    pre_BL: Float[Tensor, "B L"], bound_B: Float[Tensor, "B"], bound_L: Float[Tensor, "L"], room: int
) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
    """The latents whose number is at least its token's and its latent's bound, both positive, in order.

    With which slots are used; the others name latent 0. room: about how many a token has.
    """
    pre, by_token, by_latent = _array(pre_BL), _array(bound_B), _array(bound_L)
    counts = np.zeros(len(pre), np.int64)
    latents = np.zeros((len(pre), max(1, min(room, pre.shape[1]))), np.int64)

    def run(b: slice) -> None:
        _reaching(pre[b], by_token[b], by_latent, latents[b], counts[b])

    in_threads(run, len(pre))
    most = max(1, int(counts.max(initial=0)))
    if most > latents.shape[1]:
        latents = np.zeros((len(pre), most), np.int64)
        in_threads(run, len(pre))
    used_BC = torch.from_numpy(np.arange(most) < counts[:, None])
    return torch.from_numpy(latents[:, :most]), used_BC

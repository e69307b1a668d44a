"""The loops of `products` on CPUs: rows are read once for each active latent, and nothing dense is made.

Every result is a sum in one fixed order, whatever the number of threads.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from xtalk.compiling import compiled, in_threads
from xtalk.errors import XtalkError

_Array = NDArray[Any]


@compiled(fastmath={"contract"})
def _sum_rows(
    rows_RX: _Array, starts_S: _Array, index_Z: _Array, weight_Z: _Array, first: int, sums_SX: _Array
) -> None:
    """Sums first, first + 1, ... of weighted rows, those of sum s at starts[s] to starts[s + 1]."""
    X = rows_RX.shape[1]
    for s in range(sums_SX.shape[0]):
        sum_X = sums_SX[s]
        for x in range(X):
            sum_X[x] = 0
        z, end = starts_S[first + s], starts_S[first + s + 1]
        while z + 4 <= end:  # four at once: the sum stays in registers for longer
            a, b, c, d = weight_Z[z], weight_Z[z + 1], weight_Z[z + 2], weight_Z[z + 3]
            if a != 0 or b != 0 or c != 0 or d != 0:  # padding comes in a row
                a_X, b_X = rows_RX[index_Z[z]], rows_RX[index_Z[z + 1]]
                c_X, d_X = rows_RX[index_Z[z + 2]], rows_RX[index_Z[z + 3]]
                for x in range(X):
                    sum_X[x] += (a * a_X[x] + b * b_X[x]) + (c * c_X[x] + d * d_X[x])
            z += 4
        while z < end:
            a, a_X = weight_Z[z], rows_RX[index_Z[z]]
            if a != 0:
                for x in range(X):
                    sum_X[x] += a * a_X[x]
            z += 1


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _dot_rows(x_BX: _Array, rows_LX: _Array, latents_BK: _Array, used_BK: _Array, dots_BK: _Array) -> None:
    B, K = latents_BK.shape
    X, zero = x_BX.shape[1], x_BX[:1, :1].sum() * 0
    slots_K = np.empty(K + 3, np.int64)
    for b in range(B):
        x_X, used = x_BX[b], 0
        for k in range(K):
            dots_BK[b, k] = 0
            if used_BK[b, k]:
                slots_K[used] = k
                used += 1
        slots_K[used : used + 3] = slots_K[used - 1]
        for u in range(0, used, 4):  # four at once: their rows come from memory at the same time
            i, j, k, m = slots_K[u], slots_K[u + 1], slots_K[u + 2], slots_K[u + 3]
            i_X, j_X = rows_LX[latents_BK[b, i]], rows_LX[latents_BK[b, j]]
            k_X, m_X = rows_LX[latents_BK[b, k]], rows_LX[latents_BK[b, m]]
            at_i, at_j, at_k, at_m = zero, zero, zero, zero
            for x in range(X):
                at_i += x_X[x] * i_X[x]
                at_j += x_X[x] * j_X[x]
                at_k += x_X[x] * k_X[x]
                at_m += x_X[x] * m_X[x]
            dots_BK[b, i], dots_BK[b, j], dots_BK[b, k], dots_BK[b, m] = at_i, at_j, at_k, at_m


@compiled()
def _by_latent(
    latents_BK: _Array, values_BK: _Array, starts_L: _Array, token_Z: _Array, weight_Z: _Array
) -> None:
    """Sort slots by latent, each latent's by token; those of latent l lie at starts[l] to starts[l + 1]."""
    B, K = latents_BK.shape
    for b in range(B):
        for k in range(K):
            if values_BK[b, k] != 0:
                starts_L[latents_BK[b, k] + 1] += 1
    for latent in range(len(starts_L) - 1):
        starts_L[latent + 1] += starts_L[latent]
    next_L = starts_L.copy()
    for b in range(B):
        for k in range(K):
            if values_BK[b, k] != 0:
                z = next_L[latents_BK[b, k]]
                token_Z[z] = b
                weight_Z[z] = values_BK[b, k]
                next_L[latents_BK[b, k]] += 1


def _array(tensor: Tensor) -> _Array:
    return tensor.detach().contiguous().numpy()


def _latents(latents_BK: Tensor, n_latents: int) -> _Array:
    """The latents as an array, none out of range: the loops would read past the end of the rows."""
    latents = _array(latents_BK)
    if latents.size and not 0 <= latents.min() <= latents.max() < n_latents:
        raise XtalkError(f"latents from {latents.min()} to {latents.max()}; expected 0 to {n_latents - 1}")
    return latents


def codes_times_rows(
    latents_BK: Int[Tensor, "B K"], values_BK: Float[Tensor, "B K"], rows_LX: Float[Tensor, "L X"]
) -> Float[Tensor, "B X"]:
    """Each token's sum of its latents' rows, weighted by their values. CPU tensors of one dtype."""
    (B, K), X = latents_BK.shape, rows_LX.shape[1]
    rows, latents, values = _array(rows_LX), _latents(latents_BK, len(rows_LX)), _array(values_BK)
    starts, sums_BX = np.arange(0, B * K + 1, max(K, 1))[: B + 1], rows_LX.new_empty(B, X)
    if not K:
        return sums_BX.zero_()

    def run(b: slice) -> None:
        _sum_rows(rows, starts, latents.reshape(-1), values.reshape(-1), b.start, sums_BX.numpy()[b])

    in_threads(run, B)
    return sums_BX


def codes_transposed_times(
    latents_BK: Int[Tensor, "B K"],
    values_BK: Float[Tensor, "B K"],
    x_BX: Float[Tensor, "B X"],
    n_latents: int,
) -> Float[Tensor, "L X"]:
    """Each latent's sum of the tokens' x where it is active, weighted by its values. CPU, one dtype."""
    x, latents, values = _array(x_BX), _latents(latents_BK, n_latents), _array(values_BK)
    starts, tokens = np.zeros(n_latents + 1, np.int64), np.empty(latents.size, np.int64)
    weights = np.empty(latents.size, values.dtype)
    _by_latent(latents, values, starts, tokens, weights)
    sums_LX = x_BX.new_empty(n_latents, x_BX.shape[1])

    def run(latent: slice) -> None:
        _sum_rows(x, starts, tokens, weights, latent.start, sums_LX.numpy()[latent])

    in_threads(run, n_latents)
    return sums_LX


def dots(
    x_BX: Float[Tensor, "B X"],
    rows_LX: Float[Tensor, "L X"],
    latents_BK: Int[Tensor, "B K"],
    used_BK: Bool[Tensor, "B K"],
) -> Float[Tensor, "B K"]:
    """The product of each token's x with its latents' rows; 0 where a slot is not used. CPU, one dtype."""
    x, rows, latents = _array(x_BX), _array(rows_LX), _latents(latents_BK, len(rows_LX))
    used, dots_BK = _array(used_BK), x_BX.new_empty(latents_BK.shape)

    def run(b: slice) -> None:
        _dot_rows(x[b], rows, latents[b], used[b], dots_BK.numpy()[b])

    in_threads(run, len(x))
    return dots_BK

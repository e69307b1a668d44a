"""The hot loop on CPUs: each neuron's largest contributions, without ever storing all of them.

All contributions of a batch are a (B, K, N) tensor, gigabytes at the paper's size; these loops keep one
token's scores in cache and read the K active rows of M once. Other devices take the chunked tensor
formulations in `contributions.py` and `pairs.py`; both are tested against xtalk/selftest.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from xtalk.compiling import compiled, in_threads
from xtalk.errors import XtalkError

_Array = NDArray[Any]


@compiled()
def _top_slot(M_LN: _Array, latents_BK: _Array, values_BK: _Array, slots_BN: _Array) -> None:
    B, K = latents_BK.shape
    N = slots_BN.shape[1]
    for b in range(B):
        best_N = np.full(N, -1.0, dtype=M_LN.dtype)
        for k in range(K):
            value = values_BK[b, k]
            if value == 0.0 and k > 0:  # padding never beats slot 0
                continue
            latent = latents_BK[b, k]
            for n in range(N):
                score = abs(value * M_LN[latent, n])
                if score > best_N[n]:
                    best_N[n] = score
                    slots_BN[b, n] = k


@compiled()
def _used(values_K: _Array, least: int) -> int:
    """How many slots to look at: up to the last that is no padding, which comes after all others."""
    used = len(values_K)
    while used > least and values_K[used - 1] == 0.0:
        used -= 1
    return used


@compiled()
def _rank_slots(score_KN: _Array, slots_mN: _Array) -> None:
    """Each column's m largest scores, largest first, the lower slot on ties; cleared in `score_KN`."""
    K, N = score_KN.shape
    for rank in range(slots_mN.shape[0]):
        best_N = np.full(N, -1.0, dtype=score_KN.dtype)
        slot_N = slots_mN[rank]
        for k in range(K):
            for n in range(N):
                if score_KN[k, n] > best_N[n]:
                    best_N[n] = score_KN[k, n]
                    slot_N[n] = k
        for n in range(N):
            score_KN[slot_N[n], n] = -1.0


@compiled()
def _top_slots(M_LN: _Array, latents_BK: _Array, values_BK: _Array, slots_BmN: _Array) -> None:
    B, m, N = slots_BmN.shape
    for b in range(B):
        K = _used(values_BK[b], m)
        score_KN = np.empty((K, N), dtype=M_LN.dtype)
        for k in range(K):
            value, latent = values_BK[b, k], latents_BK[b, k]
            for n in range(N):
                score_KN[k, n] = abs(value * M_LN[latent, n])
        _rank_slots(score_KN, slots_BmN[b])


@compiled()
def _top_slots_gated(
    gate_LN: _Array,
    value_LN: _Array,
    gate_weight_BN: _Array,
    value_weight_BN: _Array,
    latents_BK: _Array,
    values_BK: _Array,
    slots_BmN: _Array,
) -> None:
    B, m, N = slots_BmN.shape
    for b in range(B):
        K = _used(values_BK[b], m)
        score_KN = np.empty((K, N), dtype=value_LN.dtype)
        for k in range(K):
            value, latent = abs(values_BK[b, k]), latents_BK[b, k]
            for n in range(N):
                gate = abs(gate_LN[latent, n]) * gate_weight_BN[b, n]
                score_KN[k, n] = value * (gate + abs(value_LN[latent, n]) * value_weight_BN[b, n])
        _rank_slots(score_KN, slots_BmN[b])


@compiled()
def _add_pair_blocks(
    M_LN: _Array,
    latents_BK: _Array,
    values_BK: _Array,
    slots_BN: _Array,
    weight_BN: _Array,
    blocks_BKK: _Array,
) -> None:
    B, K = latents_BK.shape
    for b in range(B):
        for j in range(K):
            value = abs(values_BK[b, j])
            if value == 0.0:
                continue
            latent = latents_BK[b, j]
            for n in range(M_LN.shape[1]):
                blocks_BKK[b, slots_BN[b, n], j] += value * abs(M_LN[latent, n]) * weight_BN[b, n]


@compiled(fastmath={"reassoc"})  # lets the sum use vectors
def _row_sums(M_LN: _Array, weight_N: _Array, sums_L: _Array) -> None:
    for latent in range(M_LN.shape[0]):
        total = weight_N[0] * 0
        for n in range(M_LN.shape[1]):
            total += abs(M_LN[latent, n]) * weight_N[n]
        sums_L[latent] = total


@compiled()
def _subtract_dominated(
    M_LN: _Array, latents_BK: _Array, slots_BN: _Array, weight_N: _Array, sums_BK: _Array
) -> None:
    for b in range(slots_BN.shape[0]):
        for n in range(slots_BN.shape[1]):
            slot = slots_BN[b, n]
            sums_BK[b, slot] -= abs(M_LN[latents_BK[b, slot], n]) * weight_N[n]


@compiled()
def _others_gradient(
    M_LN: _Array,
    latents_BK: _Array,
    size_BK: _Array,
    slots_BN: _Array,
    weight_N: _Array,
    active_L: _Array,
    start: int,
    stop: int,
    gradient_LN: _Array,
) -> None:
    for latent in range(M_LN.shape[0]):
        for n in range(start, stop):
            gradient_LN[latent, n] = np.sign(M_LN[latent, n]) * weight_N[n] * active_L[latent]
    for b in range(slots_BN.shape[0]):
        for n in range(start, stop):
            slot = slots_BN[b, n]
            latent = latents_BK[b, slot]
            gradient_LN[latent, n] -= np.sign(M_LN[latent, n]) * weight_N[n] * size_BK[b, slot]


def _array(tensor: Tensor) -> _Array:
    return tensor.detach().contiguous().numpy()


def _latents(latents_BK: Tensor, n_latents: int) -> _Array:
    """The latents as an array, none out of range: the loops would read past the end of M."""
    latents = _array(latents_BK)
    if latents.size and not 0 <= latents.min() <= latents.max() < n_latents:
        raise XtalkError(f"latents from {latents.min()} to {latents.max()}; expected 0 to {n_latents - 1}")
    return latents


def top_slots(
    M_LN: Float[Tensor, "L N"], latents_BK: Int[Tensor, "B K"], values_BK: Float[Tensor, "B K"], m: int
) -> Int[Tensor, "B m N"]:
    """Slots of the m largest |values * M| per token and neuron, largest first; m at most K. CPU tensors."""
    slots_BmN = np.zeros((len(latents_BK), m, M_LN.shape[1]), dtype=np.int32)
    M, latents, values = _array(M_LN), _latents(latents_BK, len(M_LN)), _array(values_BK)

    def run(rows: slice) -> None:
        if m == 1:
            _top_slot(M, latents[rows], values[rows], slots_BmN[rows, 0])
        else:
            _top_slots(M, latents[rows], values[rows], slots_BmN[rows])

    in_threads(run, len(latents))
    return torch.from_numpy(slots_BmN).long()


def top_slots_gated(
    gate_LN: Float[Tensor, "L N"],
    value_LN: Float[Tensor, "L N"],
    gate_weight_BN: Float[Tensor, "B N"],
    value_weight_BN: Float[Tensor, "B N"],
    latents_BK: Int[Tensor, "B K"],
    values_BK: Float[Tensor, "B K"],
    m: int,
) -> Int[Tensor, "B m N"]:
    """As `top_slots`, by the score |values| * (|gate| * gate_weight + |value| * value_weight)."""
    slots_BmN = np.zeros((len(latents_BK), m, gate_LN.shape[1]), dtype=np.int32)
    gate, value = _array(gate_LN), _array(value_LN)
    gate_weight, value_weight = _array(gate_weight_BN), _array(value_weight_BN)
    latents, values = _latents(latents_BK, len(gate_LN)), _array(values_BK)

    def run(rows: slice) -> None:
        by_token = gate_weight[rows], value_weight[rows], latents[rows], values[rows]
        _top_slots_gated(gate, value, *by_token, slots_BmN[rows])

    in_threads(run, len(slots_BmN))
    return torch.from_numpy(slots_BmN).long()


def add_pair_blocks(
    M_LN: Float[Tensor, "L N"],
    latents_BK: Int[Tensor, "B K"],
    values_BK: Float[Tensor, "B K"],
    slots_BN: Int[Tensor, "B N"],
    weight_BN: Float[Tensor, "B N"],
    blocks_BKK: Float[Tensor, "B K K"],
) -> None:
    """Add to blocks[b, i, j] the sum over neurons n with slots[b, n] = i of w |value_j M_jn|. CPU tensors."""
    M, latents, values = _array(M_LN), _array(latents_BK), _array(values_BK)
    slots, weight, blocks = _array(slots_BN), _array(weight_BN), blocks_BKK.numpy()

    def run(rows: slice) -> None:
        _add_pair_blocks(M, latents[rows], values[rows], slots[rows], weight[rows], blocks[rows])

    in_threads(run, len(latents_BK))


def others(
    M_LN: Float[Tensor, "L N"],
    latents_BK: Int[Tensor, "B K"],
    slots_BN: Int[Tensor, "B N"],
    weight_N: Float[Tensor, "N"],
) -> Float[Tensor, "B K"]:
    """The sum of weight |M| of each slot over the neurons that slots_BN does not give it. CPU tensors."""
    M, latents, slots, weight = _array(M_LN), _array(latents_BK), _array(slots_BN), _array(weight_N)
    sums_L = np.empty(len(M), dtype=M.dtype)

    def sum_rows(rows: slice) -> None:
        _row_sums(M[rows], weight, sums_L[rows])

    in_threads(sum_rows, len(M))
    sums_BK = sums_L.astype(np.float64)[latents]  # float64: many small differences follow

    def subtract(rows: slice) -> None:
        _subtract_dominated(M, latents[rows], slots[rows], weight, sums_BK[rows])

    in_threads(subtract, len(latents))
    return torch.from_numpy(sums_BK).to(M_LN.dtype)


def others_gradient(
    M_LN: Float[Tensor, "L N"],
    latents_BK: Int[Tensor, "B K"],
    size_BK: Float[Tensor, "B K"],
    slots_BN: Int[Tensor, "B N"],
    weight_N: Float[Tensor, "N"],
    active_L: Float[Tensor, "L"],
) -> Float[Tensor, "L N"]:
    """sign(M_in) weight_n (active_i - the sizes of latent i at tokens where it has neuron n). CPU tensors."""
    M, latents, size, slots = _array(M_LN), _array(latents_BK), _array(size_BK), _array(slots_BN)
    weight, active, gradient_LN = _array(weight_N), _array(active_L), np.empty_like(M)

    def run(columns: slice) -> None:  # two threads with tokens of their own would write to the same latents
        _others_gradient(M, latents, size, slots, weight, active, columns.start, columns.stop, gradient_LN)

    in_threads(run, M.shape[1])
    return torch.from_numpy(gradient_LN)

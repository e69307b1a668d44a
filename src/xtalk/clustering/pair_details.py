"""Where two latents meet: the neurons at which one dominates and the other adds, and the tokens."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Int
from torch import Tensor

from xtalk.clustering.sparse import entries
from xtalk.codes import Codes
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import interaction_weights

PLACES = 12  # of each pair that are looked at: those of the largest product of activations


@dataclass(frozen=True)
class PairDetail:
    """Two latents at the places where they are most active together.

    neurons: (block, neuron, part of the pair's interaction there), largest first; places: (place in the
    text, interaction), largest first; interaction counts either direction and all blocks.
    """

    latents: tuple[int, int]
    neurons: tuple[tuple[int, int, float], ...]
    places: tuple[tuple[int, float], ...]


@torch.no_grad()
def pair_details(
    pairs: Sequence[tuple[int, int]],
    codes_BL: sp.csr_array,
    contributions: Callable[[Codes, Int[np.ndarray, "S"]], Iterable[tuple[int, MlpContributions]]],
    *,
    neurons: int = 5,
    places: int = 3,
) -> list[PairDetail]:
    """Where each pair meets on the text that `codes_BL` codes.

    contributions: to each block's MLP, of codes and the S places of the text that they are of, ascending.
    """
    by_latent = sp.csc_array(codes_BL)
    joint = [_joint_places(by_latent, *pair) for pair in pairs]
    read = np.unique(np.concatenate([np.zeros(0, np.int64), *joint]))
    if not len(read):
        return [PairDetail(pair, (), ()) for pair in pairs]
    codes = _codes(codes_BL[read])
    amounts: list[list[Tensor]] = [[] for _ in pairs]  # by pair and block: (places, N)
    blocks: list[int] = []
    for block, mlp in contributions(codes, read):
        blocks.append(block)
        device, weights = mlp.codes.values.device, interaction_weights(mlp)
        dominant_BN = mlp.codes.latents.gather(1, mlp.dominant_BN)
        for pair, where, into in zip(pairs, joint, amounts, strict=True):
            rows = torch.from_numpy(np.searchsorted(read, where)).to(device)
            total_pN = torch.zeros(len(rows), dominant_BN.shape[1], device=device)
            for one, other in (pair, pair[::-1]):
                is_other_pK = mlp.codes.latents[rows] == other
                values_p = (mlp.codes.values[rows] * is_other_pK).sum(1)
                for path, weight_BN in zip(mlp.paths, weights, strict=True):
                    charge_pN = (values_p.to(path.M_LN)[:, None] * path.M_LN[other]).abs() * weight_BN[rows]
                    total_pN += charge_pN * (dominant_BN[rows] == one)
            into.append(total_pN.cpu())
    return [
        _meeting(pair, where, blocks, some, neurons, places)
        for pair, where, some in zip(pairs, joint, amounts, strict=True)
    ]


def _joint_places(by_latent: sp.csc_array, one: int, other: int) -> Int[np.ndarray, "p"]:
    """The places of the largest products of both activations, in order of place."""
    product = entries(by_latent[:, [one]].multiply(by_latent[:, [other]]))
    return np.sort(product.rows[np.argsort(-product.values, kind="stable")[:PLACES]])


def _codes(codes_SL: sp.csr_array) -> Codes:
    codes = entries(codes_SL)
    slots = np.arange(len(codes.rows)) - np.searchsorted(codes.rows, codes.rows)
    latents = np.zeros((codes.shape[0], int(slots.max()) + 1), dtype=np.int64)
    values = np.zeros(latents.shape, dtype=np.float32)
    latents[codes.rows, slots], values[codes.rows, slots] = codes.columns, codes.values
    return Codes(torch.from_numpy(latents), torch.from_numpy(values), codes.shape[1])


def _meeting(
    pair: tuple[int, int],
    where: Int[np.ndarray, "p"],
    blocks: Sequence[int],
    amounts: Sequence[Tensor],
    neurons: int,
    places: int,
) -> PairDetail:
    amount_bpN = torch.stack(list(amounts)).double().numpy()
    by_neuron, by_place = amount_bpN.sum(1), amount_bpN.sum((0, 2))
    whole = by_neuron.sum() or 1.0
    largest = np.argsort(-by_neuron, axis=None, kind="stable")[:neurons]
    places_of = [divmod(int(flat), by_neuron.shape[1]) for flat in largest]
    return PairDetail(
        pair,
        tuple((blocks[b], k, float(by_neuron[b, k] / whole)) for b, k in places_of if by_neuron[b, k] > 0),
        tuple((int(where[p]), float(by_place[p])) for p in np.argsort(-by_place, kind="stable")[:places]),
    )

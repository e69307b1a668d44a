"""How much of the model's performance survives when an MLP's output is rebuilt from chosen contributions.

docs/method.md, Fidelity. CE_model, CE_mean and CE_zero are the cross-entropies of the model, of the model
with the MLP's output replaced by its mean over training text, and with every contribution set to 0, keeping
the base:

    Phi_mean = 1 - (CE_scheme - CE_model) / (CE_mean - CE_model)     the headline figure
    Phi_zero = 1 - (CE_scheme - CE_model) / (CE_zero - CE_model)     the paper's
    NMSE     = |rebuilt - true|^2 / |true - mean|^2                  summed over tokens

All of these are over the tokens that count (`xtalk.data.Counted`): others keep the model's own output, and
their predictions are not added up. Phi_mean's baseline belongs to the model alone (its own resid_mid,
whichever one the scheme is run on). Phi_zero's depends on the crosscoder, and a worse base scores better: for
comparison with published numbers.

One MLP is rebuilt at a time; and then those of several blocks at once, each from what the crosscoder makes of
the model's own activations, against all of them at their mean outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.schemes import SCHEMES, scheme_generator
from xtalk.evaluation.together import Together, TogetherStreams, blocks_together
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import DocumentSums, next_token_loss
from xtalk.reading.explained import Explained, ExplainedBatch
from xtalk.statistics.bootstrap import Bootstrap, interval, mean_over
from xtalk.statistics.interval import Interval

FEW = ("full", "keep_8", "keep_4", "keep_2", "keep_1")  # schemes that keep the largest contributions
ResidMid = Literal["model", "crosscoder"]
Baseline = Literal["mean", "zero"]
Blocks = int | Literal["mean"] | Together


@dataclass(frozen=True)
class Fidelity:
    """Fidelity for one resid_mid and baseline: at one block, or as the mean over blocks ("mean").

    Or with several MLPs rebuilt at once: "all" but block 0's, and "all_with_0"; resid_mid is then the model's
    own with what was rebuilt, and the baseline "mean".

    phi, nmse: by scheme, with 95 % intervals over documents; ce: nat per token. NMSE depends on neither
    resid_mid nor baseline; of several blocks it is the mean. lost: CE_scheme - CE_model by scheme, and
    ablation: CE_baseline - CE_model, in nat per token; a phi whose ablation lies within noise says nothing.
    weighed: phi with every block weighed by what its ablation costs, which is 1 - (sum over blocks of lost) /
    (sum of ablation): a block that costs nothing does not rule it, as it may the plain mean. Everywhere but
    at "mean" it is phi.
    """

    block: Blocks
    resid_mid: ResidMid
    baseline: Baseline
    phi: dict[str, Interval]
    weighed: dict[str, Interval]
    nmse: dict[str, Interval]
    lost: dict[str, Interval]
    ablation: Interval
    ce: dict[str, float]


class FidelityMeter:
    """Collects cross-entropies and squared errors of rebuilt MLP outputs, batch by batch.

    The crosscoder's resid_mid is left out at blocks where it has none. few: of the schemes those of FEW
    alone, without controls, and without the baseline "zero".
    """

    def __init__(
        self, explained: Explained, baselines: ModelBaselines, seed: int, *, few: bool = False
    ) -> None:
        self._schemes = FEW if few else tuple(SCHEMES)
        self._against: tuple[Baseline, ...] = ("mean",) if few else get_args(Baseline)
        self._explained = explained
        self._baselines = baselines
        self._together = blocks_together(explained.blocks)
        self._sums = DocumentSums(len(baselines.model_E))
        self._generators = {
            (block, name): scheme_generator(seed, block, name)
            for block in explained.blocks
            for name in self._schemes
        }

    def add(self, batch: ExplainedBatch, advance: Callable[[int], None] = lambda block: None) -> None:
        """Rebuild each block's MLP output by each scheme and run the model on; then all at once.

        `advance` is called with each block, while its contributions are at hand.
        """
        together = {name: TogetherStreams(self._explained.model, batch) for name in self._together}
        for block in self._explained.blocks:
            at_once = [together[name] for name, blocks in self._together.items() if block in blocks]
            self._rebuild(batch, block, at_once)
            advance(block)
        for label, streams in together.items():
            for name in (*self._schemes, "mean"):
                self._sums.add(*batch.batch.predicted(streams.loss(name)), "ce", label, "model", name)

    def _rebuild(self, batch: ExplainedBatch, block: int, at_once: Sequence[TogetherStreams]) -> None:
        """One block's MLP output by each scheme, alone and in the streams of several."""
        contributions = batch.contributions[block]
        true_BD = contributions.mlp(batch.mlp_input(block))
        mean_D = self._baselines.mean_outputs[block]
        self._sums.add((true_BD - mean_D).square().sum(1), batch.documents_B, "variance", block)
        mids = self._resid_mids(batch, block)
        for name in self._schemes:
            kept = SCHEMES[name](contributions, self._generators[block, name])
            rebuilt_BD = contributions.output(kept)
            error_B = (rebuilt_BD - true_BD).square().sum(1)
            self._sums.add(error_B, batch.documents_B, "error", block, name)
            added_BD = self._run_on(batch, block, name, rebuilt_BD, mids)
            for streams in at_once:
                streams.replace(name, block, added_BD)
        for streams in at_once:
            streams.replace("mean", block, self._explained.model.added(block, mean_D).expand_as(true_BD))
        if "zero" in self._against:
            zero = tuple(torch.zeros_like(total_BN) for total_BN in contributions.totals)
            self._run_on(batch, block, "zero", contributions.output(zero), mids)

    def _resid_mids(self, batch: ExplainedBatch, block: int) -> dict[ResidMid, Tensor]:
        point = Hookpoint(block, "resid_mid")
        mids: dict[ResidMid, Tensor] = {"model": batch.captured(point)}
        if point in self._explained.index and self._explained.error == "drop":
            mids["crosscoder"] = batch.decoded_BPD[:, self._explained.index[point]]
        return mids

    def _run_on(
        self,
        batch: ExplainedBatch,
        block: int,
        name: str,
        mlp_out_BD: Float[Tensor, "B D"],
        mids: Mapping[ResidMid, Tensor],
    ) -> Float[Tensor, "B D"]:
        """Returns what the residual stream gains."""
        tokens = batch.batch.tokens_mS
        model = self._explained.model
        added_BD = model.added(block, mlp_out_BD)
        for resid_mid, mid_BD in mids.items():
            post_mSD = batch.spliced(mid_BD + added_BD, Hookpoint(block, "resid_post"))
            loss_mT = next_token_loss(model.continue_from(block, post_mSD, tokens), tokens)
            self._sums.add(*batch.batch.predicted(loss_mT), "ce", block, resid_mid, name)
        return added_BD

    def result(self, bootstrap: Bootstrap, averaged: Sequence[int]) -> tuple[Fidelity, ...]:
        """Fidelity by block, its mean over the blocks `averaged`, and of all blocks at once.

        Each with the same resamples. Errors: XtalkError where the text leaves a ratio without a denominator.
        """
        rows: list[Fidelity] = []
        for resid_mid in get_args(ResidMid):
            blocks = [b for b in self._explained.blocks if ("ce", b, resid_mid, "full") in self._sums]
            for baseline in self._against:
                rows += [self._row([b], b, resid_mid, baseline, bootstrap) for b in blocks]
                if blocks and set(averaged) <= set(blocks):
                    rows.append(self._row(averaged, "mean", resid_mid, baseline, bootstrap))
        rows += [self._row([name], name, "model", "mean", bootstrap) for name in self._together]
        return tuple(rows)

    def _row(
        self,
        blocks: Sequence[int | Together],
        label: Blocks,
        resid_mid: ResidMid,
        baseline: Baseline,
        bootstrap: Bootstrap,
    ) -> Fidelity:
        phi: dict[str, Interval] = {}
        weighed: dict[str, Interval] = {}
        nmse: dict[str, Interval] = {}
        lost: dict[str, Interval] = {}
        ce: dict[str, float] = {}
        predicted = self._baselines.predicted_E.sum()
        tokens_R = bootstrap.totals(self._baselines.predicted_E)
        ablations = [self._ablation(b, resid_mid, baseline, bootstrap) for b in blocks]
        for name in self._schemes:
            losses = [self._lost(b, resid_mid, name, bootstrap) for b in blocks]
            ratios = [
                1 - ratio(lost_R, ablation_R, f"ablating the MLP of {_listed([b])} costs nothing")
                for b, lost_R, ablation_R in zip(blocks, losses, ablations, strict=True)
            ]
            phi[name] = interval(mean_over(ratios))
            whole_R = np.sum(ablations, axis=0)
            why = f"ablating the MLPs of {_listed(blocks)} costs nothing together"
            weighed[name] = interval(1 - ratio(np.sum(losses, axis=0), whole_R, why))
            rebuilt = [b for s in blocks for b in ((s,) if isinstance(s, int) else self._together[s])]
            nmse[name] = interval(mean_over([self._nmse(b, name, bootstrap) for b in rebuilt]))
            lost[name] = interval(ratio(mean_over(losses), tokens_R, "no prediction counts"))
            ce[name] = float(
                np.mean([self._sums["ce", b, resid_mid, name].sum() / predicted for b in blocks])
            )
        ablation = interval(ratio(mean_over(ablations), tokens_R, "no prediction counts"))
        return Fidelity(label, resid_mid, baseline, phi, weighed, nmse, lost, ablation, ce)

    def _lost(
        self, block: int | Together, resid_mid: ResidMid, name: str, bootstrap: Bootstrap
    ) -> Float[np.ndarray, "R1"]:
        """What a scheme costs, summed over predictions, nat."""
        return bootstrap.totals(self._sums["ce", block, resid_mid, name] - self._baselines.model_E)

    def _ablation(
        self, block: int | Together, resid_mid: ResidMid, baseline: Baseline, bootstrap: Bootstrap
    ) -> Float[np.ndarray, "R1"]:
        """What the baseline's ablation costs, summed over predictions, nat."""
        if baseline == "zero":
            return self._lost(block, resid_mid, "zero", bootstrap)
        if not isinstance(block, int):
            return self._lost(block, resid_mid, "mean", bootstrap)
        return bootstrap.totals(self._baselines.ablated[block] - self._baselines.model_E)

    def _nmse(self, block: int, name: str, bootstrap: Bootstrap) -> Float[np.ndarray, "R1"]:
        error_R = bootstrap.totals(self._sums["error", block, name])
        variance_R = bootstrap.totals(self._sums["variance", block])
        return ratio(error_R, variance_R, f"the output of the MLP of block {block} does not vary")


def _listed(blocks: Sequence[int | Together]) -> str:
    numbers = [str(block) for block in blocks]
    return f"block {numbers[0]}" if len(numbers) == 1 else f"blocks {', '.join(numbers)}"


def ratio(
    part_R: Float[np.ndarray, "R1"], whole_R: Float[np.ndarray, "R1"], why: str
) -> Float[np.ndarray, "R1"]:
    """The ratio, resample by resample. Errors: XtalkError says why where some whole is 0."""
    if not whole_R.all():
        raise XtalkError(f"{why} on (a resample of) this text; evaluate on more text, or another block")
    return part_R / whole_R

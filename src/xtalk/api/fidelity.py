"""Fidelity of a crosscoder in a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from xtalk.api.held_out import held_out
from xtalk.api.inputs import Dictionary, Model, Texts, crosscoder_in, model_of
from xtalk.data import Counted, TokenSequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.evaluate import default_average
from xtalk.evaluation.fidelity import Baseline, Fidelity, FidelityMeter, ResidMid
from xtalk.evaluation.plausible import odd_fidelities
from xtalk.evaluation.schemes import SCHEMES
from xtalk.progress import Report, silent
from xtalk.reading.explained import Explained
from xtalk.reading.places import ErrorNode
from xtalk.statistics.bootstrap import Bootstrap, Interval

AT_ONCE = {"all": "all MLPs but block 0's at once", "all_with_0": "all MLPs at once"}


@dataclass(frozen=True)
class Fidelities:
    """Fidelity by scheme and block, and the cross-entropies behind it, nat per token.

    ce: the model's; ce_mean: by block, with that MLP's output replaced by its mean. averaged: the blocks that
    "mean" stands for. by_block: for every block and "mean", resid_mid and baseline; and for "all" MLPs that
    the crosscoder reads but block 0's rebuilt at once, and "all_with_0". tokens: those that count.
    """

    tokens: int
    documents: int
    ce: float
    ce_mean: Mapping[int, float]
    averaged: tuple[int, ...]
    by_block: tuple[Fidelity, ...]

    def __getitem__(self, scheme: str) -> Interval:
        """Phi_mean of a scheme, mean over the averaged blocks, with its 95 % interval over documents."""
        if scheme not in SCHEMES:
            raise XtalkError(f"no scheme {scheme!r}; expected one of {', '.join(SCHEMES)}")
        return self._row("model", "mean").phi[scheme]

    def rows(self) -> list[dict[str, Any]]:
        """All figures, a row for each block, resid_mid, baseline and scheme, for `pandas.DataFrame`."""
        return [
            {
                "block": row.block,
                "resid_mid": row.resid_mid,
                "baseline": row.baseline,
                "scheme": scheme,
                "phi": phi.value,
                "low": phi.low,
                "high": phi.high,
                "weighed": row.weighed[scheme].value,
                "lost": row.lost[scheme].value,
                "ablation": row.ablation.value,
                "nmse": row.nmse[scheme].value,
                "ce": row.ce[scheme],
                "ce_model": self.ce,
            }
            for row in self.by_block
            for scheme, phi in row.phi.items()
        ]

    def __str__(self) -> str:
        row = self._row("model", "mean")
        ablated = sum(self.ce_mean[block] for block in self.averaged) / len(self.averaged)
        lines = [
            f"{'scheme':18}{'Phi_mean':>9}  95 % interval      NMSE    CE",
            *(
                f"{name:18}{phi.value:9.3f}  [{phi.low:6.3f}, {phi.high:6.3f}]  {row.nmse[name].value:6.3f}  "
                f"{row.ce[name]:.3f}"
                for name, phi in row.phi.items()
            ),
            f"CE of the model {self.ce:.3f}, with an MLP's mean output {ablated:.3f} nat/token; mean over "
            f"blocks {', '.join(map(str, self.averaged))}; {self.tokens} tokens, {self.documents} documents",
            _in_nats("one MLP at a time", row),
            *(_in_nats(AT_ONCE[some.block], some) for some in self.by_block if some.block in AT_ONCE),
            *(f"WARNING: {sentence}" for sentence in odd_fidelities(self.by_block)),
        ]
        return "\n".join(lines)

    def _row(self, resid_mid: ResidMid, baseline: Baseline) -> Fidelity:
        key = ("mean", resid_mid, baseline)
        return next(row for row in self.by_block if (row.block, row.resid_mid, row.baseline) == key)


def _in_nats(which: str, row: Fidelity) -> str:
    def nats(loss: Interval) -> str:
        return f"{loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]"

    return (
        f"{which}: nat/token lost {nats(row.lost['full'])} with full, {nats(row.lost['keep_1'])} with "
        f"keep_1, ablation costs {nats(row.ablation)}; weighed by that cost Phi_mean is "
        f"{row.weighed['full'].value:.3f} and {row.weighed['keep_1'].value:.3f}"
    )


@torch.no_grad()
def fidelity(
    model: Model,
    crosscoder: Dictionary,
    texts: Texts,
    *,
    mean_texts: Texts | None = None,
    tokens: int = 8192,
    sequence_length: int | None = None,
    skip_positions: int = 1,
    error: ErrorNode = "drop",
    resamples: int = 1000,
    seed: int = 0,
    progress: Report = silent,
) -> Fidelities:
    """How much of the model's performance survives when its MLPs' outputs are rebuilt from features.

    Phi_mean = 1 - (CE_scheme - CE_model) / (CE_mean - CE_model), at one MLP at a time: 1 is as good as the
    model, 0 as bad as the MLP's mean output. Schemes: full, keep_1, keep_2, keep_4 and keep_8 (each neuron's
    m largest contributions), drop_..., and the controls keep_random, keep_most_active and shrink. With 95 %
    intervals over documents, absolute cross-entropies and losses (nat per token), NMSE, the paper's Phi_zero,
    and the same with all MLPs that the crosscoder reads rebuilt at once (docs/method.md).

    texts: held-out text of 8 documents or more, `tokens` tokens of it at most. mean_texts: what the MLPs'
    mean outputs are taken over, other text by rights; by default the same. skip_positions: first tokens of
    every sequence that do not count, as in `train`: they keep the model's own output. error: "drop" what the
    crosscoder leaves out of what it reads, or "keep" it in the contributions' base, so that all contributions
    are the model's own. seed: of the random schemes and the resamples. The crosscoder is in the model's own
    units, with hookpoints at MLPs' inputs (ln2) or in the residual stream before them. Errors: XtalkError for
    one without, hookpoints that the model lacks, another width, and too few documents.

    Source: arXiv 2606.09940, section 5, on a baseline of the model's alone (docs/method.md).

    >>> fid = xtalk.fidelity(model, cc, texts, tokens=1024, resamples=100)
    >>> fid["full"].value <= 1
    True
    >>> len(fid.rows()) == len(fid.by_block) * 11  # schemes
    True
    """
    language_model = model_of(model)
    explained = Explained(language_model, crosscoder_in(language_model, crosscoder), error)
    counted, averaged = Counted(skip_positions), default_average(explained.blocks)
    sequences, baselines = held_out(
        language_model, texts, mean_texts, explained.blocks, counted,
        tokens=tokens, length=sequence_length, progress=progress,
    )  # fmt: skip
    bootstrap = Bootstrap(len(baselines.model_E), resamples, seed)
    meter = _metered(explained, sequences, baselines, seed, progress)
    return Fidelities(
        tokens=counted.tally(sequences.tokens).counted,
        documents=len(baselines.model_E),
        ce=baselines.ce,
        ce_mean={block: baselines.ce_mean(block) for block in explained.blocks},
        averaged=averaged,
        by_block=meter.result(bootstrap, averaged),
    )


def _metered(
    explained: Explained, sequences: TokenSequences, baselines: ModelBaselines, seed: int, progress: Report
) -> FidelityMeter:
    """Every batch of the text, rebuilt."""
    meter, done, whole = FidelityMeter(explained, baselines, seed), 0, len(sequences) * len(explained.blocks)
    for batch in explained.batches(sequences, baselines.counted.mask(sequences.tokens)):

        def advance(block: int, size: int = len(batch.tokens_mS)) -> None:
            nonlocal done
            done += size
            progress("fidelity", done, whole)

        meter.add(explained.read(batch, explained.around_mlps(batch)), advance)
    return meter

"""How well transcoders stand for the MLPs whose outputs they write.

A transcoder decodes no MLP's input, so that contributions, interactions and their fidelity have no meaning
for it. Its output has: put in the place of the MLP's, the rest of the model is run on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.fidelity import ratio
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import Batch, DocumentSums, batches, next_token_loss
from xtalk.statistics.bootstrap import Bootstrap, interval
from xtalk.statistics.interval import Interval

_MLP_OUTPUT = re.compile(r"blocks\.(\d+)\.(?:hook_mlp_out|mlp\.hook_out)")


@dataclass(frozen=True)
class TranscodedMlp:
    """A transcoder's output in the place of an MLP's, with 95 % intervals over documents.

    phi: Phi_mean, 1 as good as the model, 0 as bad as the MLP's mean output; nmse: squared error over the
    output's variance; lost, ablation: what the transcoder and that mean cost; nat per token, as ce.
    """

    block: int
    phi: Interval
    nmse: Interval
    lost: Interval
    ablation: Interval
    ce: float


def transcoded_blocks(model: LanguageModel, config: CrosscoderConfig) -> dict[int, int]:
    """The blocks whose MLP's output is written, with the place of each among what is written.

    Errors: XtalkError for what is no transcoder, other outputs, and models with a norm behind their MLPs.
    """
    if config.hook_names_out is None:
        raise XtalkError("the dictionary writes what it reads; expected a transcoder; use xtalk.measure")
    found = [(name, _MLP_OUTPUT.fullmatch(name)) for name in config.hook_names_out]
    if strangers := [name for name, match in found if match is None]:
        raise XtalkError(
            f"the transcoder writes {', '.join(strangers)}; expected outputs of MLPs, blocks.N.hook_mlp_out; "
            "what is written elsewhere has no place in the model that xtalk knows"
        )
    blocks = {int(match[1]): q for q, (_, match) in enumerate(found) if match is not None}
    if behind := [block for block in blocks if model.mlp_weights(block).post_norm is not None]:
        raise XtalkError(
            f"the MLP of block {behind[0]} of {model.name} has a norm behind it, and a transcoder's file "
            "does not say on which side of it the output is; expected a model without; measure an SAE instead"
        )
    return blocks


@torch.no_grad()
def evaluate_transcoder(
    model: LanguageModel,
    transcoder: Crosscoder,
    sequences: TokenSequences,
    baselines: ModelBaselines,
    *,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[TranscodedMlp, ...]:
    """The fidelity of a transcoder's output at each MLP that it writes for, one MLP at a time.

    The transcoder is in the model's own units; the tokens that count are those of the baselines. `progress`
    hears of sequences done and their number. Errors: as `transcoded_blocks`, and XtalkError for baselines of
    another text or other blocks.
    """
    blocks = transcoded_blocks(model, transcoder.config)
    baselines.check_text(sequences, blocks)
    bootstrap = Bootstrap(len(baselines.model_E), resamples, seed)
    sums, done = DocumentSums(len(baselines.model_E)), 0
    for batch in batches(model, sequences, counted_nS=baselines.counted.mask(sequences.tokens)):
        _add(sums, model, transcoder, blocks, batch, baselines)
        done += len(batch.tokens_mS)
        progress(done, len(sequences))
    return tuple(_row(block, sums, baselines, bootstrap) for block in blocks)


def _add(
    sums: DocumentSums,
    model: LanguageModel,
    transcoder: Crosscoder,
    blocks: dict[int, int],
    batch: Batch,
    baselines: ModelBaselines,
) -> None:
    """Add errors and losses of a batch."""
    tokens, documents_B = batch.tokens_mS, batch.documents_mS[batch.counted_mS]
    read = [model.hookpoint(name) for name in transcoder.config.hook_names]
    beside = [Hookpoint(block, site) for block in blocks for site in ("ln2", "resid_mid", "resid_post")]
    points = list(dict.fromkeys([*read, *beside]))
    captured = dict(zip(points, model.capture(tokens, points).float().unbind(2), strict=True))
    x_BPD = torch.stack([batch.counted(captured[point]) for point in read], dim=1)
    for block, q in blocks.items():
        rebuilt_BD = _written(transcoder, x_BPD)[:, q]
        true_BD = model.mlp_weights(block)(batch.counted(captured[Hookpoint(block, "ln2")]))
        mean_D = baselines.mean_outputs[block]
        sums.add((rebuilt_BD - true_BD).square().sum(1), documents_B, "error", block)
        sums.add((true_BD - mean_D).square().sum(1), documents_B, "variance", block)
        mid_BD = batch.counted(captured[Hookpoint(block, "resid_mid")])
        own_mSD = None if batch.whole else captured[Hookpoint(block, "resid_post")]
        logits = model.continue_from(block, batch.spread(mid_BD + rebuilt_BD, own_mSD), tokens)
        sums.add(*batch.predicted(next_token_loss(logits, tokens)), "ce", block)


def _written(transcoder: Crosscoder, x_BPD: Float[Tensor, "B P D"]) -> Float[Tensor, "B Q D"]:
    written = transcoder(x_BPD if x_BPD.shape[1] > 1 else x_BPD[:, 0])
    return written.view(len(x_BPD), -1, x_BPD.shape[2])


def _row(block: int, sums: DocumentSums, baselines: ModelBaselines, bootstrap: Bootstrap) -> TranscodedMlp:
    tokens_R = bootstrap.totals(baselines.predicted_E)
    lost_R = bootstrap.totals(sums["ce", block] - baselines.model_E)
    ablation_R = bootstrap.totals(baselines.ablated[block] - baselines.model_E)
    error_R, variance_R = (bootstrap.totals(sums[name, block]) for name in ("error", "variance"))
    costless = f"ablating the MLP of block {block} costs nothing"
    still = f"the output of the MLP of block {block} does not vary"
    return TranscodedMlp(
        block,
        phi=interval(1 - ratio(lost_R, ablation_R, costless)),
        nmse=interval(ratio(error_R, variance_R, still)),
        lost=interval(lost_R / tokens_R),
        ablation=interval(ablation_R / tokens_R),
        ce=float(np.sum(sums["ce", block]) / baselines.predicted_E.sum()),
    )

"""What fidelity is measured against: properties of the model and the text, shared by all crosscoders."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.data import ALL, Counted, TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint, Site
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import DocumentSums, batches, count_documents, next_token_loss


@dataclass(frozen=True)
class ModelBaselines:
    """The model's own cross-entropy on a text, and that with an MLP's output replaced by its mean, by block.

    Sums of nat over the predictions of each document (E) that count, and how many those are.
    mean_outputs: the mean outputs, float32; ablated: sums with them, of the same blocks. counted: the tokens
    whose output was replaced, and that predictions were read from.
    """

    text_hash: str
    counted: Counted
    mean_outputs: Mapping[int, Float[Tensor, "D"]]
    predicted_E: Float[np.ndarray, "E"]
    model_E: Float[np.ndarray, "E"]
    ablated: Mapping[int, Float[np.ndarray, "E"]]

    @property
    def ce(self) -> float:
        """The model's cross-entropy, nat per token."""
        return float(self.model_E.sum() / self.predicted_E.sum())

    def ce_mean(self, block: int) -> float:
        """Cross-entropy with that block's MLP output replaced by its mean, nat per token."""
        return float(self.ablated[block].sum() / self.predicted_E.sum())

    def check_text(self, sequences: TokenSequences, blocks: Collection[int]) -> None:
        """Errors: XtalkError where the sequences are not those measured, or one of the blocks was not."""
        if sequences.text_hash != self.text_hash:
            raise XtalkError(
                f"the baselines were measured on another text ({self.text_hash[:12]}, not "
                f"{sequences.text_hash[:12]}); measure them on the text that is evaluated"
            )
        if missing := sorted(set(blocks) - set(self.ablated)):
            raise XtalkError(
                f"the baselines were measured at blocks {', '.join(map(str, self.ablated))}, not at block "
                f"{missing[0]}; measure them at all blocks that the crosscoder explains"
            )


@torch.no_grad()
def mean_mlp_outputs(
    model: LanguageModel,
    sequences: TokenSequences,
    tokens: int,
    blocks: Sequence[int],
    counted: Counted = ALL,
) -> dict[int, Float[Tensor, "D"]]:
    """The mean output of some blocks' MLPs over the first `tokens` tokens that count, whole micro-batches."""
    inputs, mlps = [Hookpoint(block, "ln2") for block in blocks], [model.mlp_weights(b) for b in blocks]
    total_bD = torch.zeros(len(blocks), model.d_model, dtype=torch.float64)
    count = 0
    for batch in batches(model, sequences, counted_nS=counted.mask(sequences.tokens)):
        n_BbD = batch.counted(model.capture(batch.tokens_mS, inputs)).float()
        total_bD += torch.stack([mlp(n_BbD[:, b]).double().sum(0).cpu() for b, mlp in enumerate(mlps)])
        count += len(n_BbD)
        if count >= tokens:
            break
    means_bD = (total_bD / count).float().to(model.device)
    return dict(zip(blocks, means_bD, strict=True))


@torch.no_grad()
def measure_baselines(
    model: LanguageModel,
    sequences: TokenSequences,
    mean_outputs: Mapping[int, Float[Tensor, "D"]],
    micro_batch: int | None = None,
    counted: Counted = ALL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ModelBaselines:
    """Cross-entropy of the model, and with the MLP's output replaced by its mean, at each block that has one.

    The means should come from other text (`mean_mlp_outputs` of the training text). Tokens that do not count
    keep their own output. `progress` hears of what is done and of all, sequences times blocks. Errors:
    XtalkError where no token, or no prediction, counts.
    """
    sums, done, whole = DocumentSums(count_documents(sequences)), 0, len(sequences) * len(mean_outputs)
    for batch in batches(model, sequences, micro_batch, counted.mask(sequences.tokens)):
        tokens = batch.tokens_mS
        loss_mT = next_token_loss(model.logits(tokens), tokens)
        sums.add(*batch.predicted(loss_mT), "model")
        sums.add(*batch.predicted(torch.ones_like(loss_mT)), "predicted")
        sites: tuple[Site, ...] = ("resid_mid",) if batch.whole else ("resid_mid", "resid_post")
        points = [Hookpoint(block, site) for block in mean_outputs for site in sites]
        streams = dict(zip(points, model.capture(tokens, points).float().unbind(2), strict=True))
        for block, mean_D in mean_outputs.items():
            mid_BD = batch.counted(streams[Hookpoint(block, "resid_mid")])
            post_mSD = batch.spread(
                mid_BD + model.added(block, mean_D), streams.get(Hookpoint(block, "resid_post"))
            )
            logits = model.continue_from(block, post_mSD, tokens)
            sums.add(*batch.predicted(next_token_loss(logits, tokens)), "mean", block)
            done += len(tokens)
            progress(done, whole)
    own = sums["predicted",], sums["model",]
    if not own[0].any():
        raise XtalkError(
            "no prediction of the text is read from a token that counts; expected some; skip fewer "
            "positions, or give longer sequences"
        )
    ablated = {block: sums["mean", block] for block in mean_outputs}
    return ModelBaselines(sequences.text_hash, counted, dict(mean_outputs), *own, ablated)

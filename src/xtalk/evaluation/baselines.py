"""What fidelity is measured against: properties of the model and the text, shared by all crosscoders."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.data import ALL, Counted, TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import DocumentSums, batches, count_documents, next_token_loss


@dataclass(frozen=True)
class ModelBaselines:
    """The model's own cross-entropy on a text, and that with each block's MLP output replaced by its mean.

    Sums of nat over the predictions of each document (E) that count, and how many those are.
    `mean_output_bD`: the mean outputs, one row per block, float32. counted: the tokens whose output was
    replaced, and that predictions were read from.
    """

    text_hash: str
    counted: Counted
    mean_output_bD: Float[Tensor, "b D"]
    predicted_E: Float[np.ndarray, "E"]
    model_E: Float[np.ndarray, "E"]
    mean_bE: Float[np.ndarray, "b E"]

    @property
    def ce(self) -> float:
        """The model's cross-entropy, nat per token."""
        return float(self.model_E.sum() / self.predicted_E.sum())

    def ce_mean(self, block: int) -> float:
        """Cross-entropy with that block's MLP output replaced by its mean, nat per token."""
        return float(self.mean_bE[block].sum() / self.predicted_E.sum())

    def check_text(self, sequences: TokenSequences) -> None:
        """Errors: XtalkError where the sequences are not those measured."""
        if sequences.text_hash != self.text_hash:
            raise XtalkError(
                f"the baselines were measured on another text ({self.text_hash[:12]}, not "
                f"{sequences.text_hash[:12]}); measure them on the text that is evaluated"
            )


@torch.no_grad()
def mean_mlp_outputs(
    model: LanguageModel, sequences: TokenSequences, tokens: int, counted: Counted = ALL
) -> Float[Tensor, "b D"]:
    """The mean output of each block's MLP over the first `tokens` tokens that count, whole micro-batches."""
    blocks = range(model.n_blocks)
    inputs, mlps = [Hookpoint(block, "ln2") for block in blocks], [model.mlp_weights(b) for b in blocks]
    total_bD = torch.zeros(model.n_blocks, model.d_model, dtype=torch.float64)
    count = 0
    for batch in batches(model, sequences, counted_nS=counted.mask(sequences.tokens)):
        n_BbD = batch.counted(model.capture(batch.tokens_mS, inputs)).float()
        total_bD += torch.stack([mlp(n_BbD[:, b]).double().sum(0).cpu() for b, mlp in enumerate(mlps)])
        count += len(n_BbD)
        if count >= tokens:
            break
    return (total_bD / count).float().to(model.device)


@torch.no_grad()
def measure_baselines(
    model: LanguageModel,
    sequences: TokenSequences,
    mean_output_bD: Float[Tensor, "b D"],
    micro_batch: int | None = None,
    counted: Counted = ALL,
) -> ModelBaselines:
    """Cross-entropy of the model, and with each MLP's output replaced by its mean `mean_output_bD`.

    The mean should come from other text (`mean_mlp_outputs` of the training text). Tokens that do not count
    keep their own output.
    """
    sums = DocumentSums(count_documents(sequences))
    mids, posts = (
        [Hookpoint(block, site) for block in range(model.n_blocks)] for site in ("resid_mid", "resid_post")
    )
    for batch in batches(model, sequences, micro_batch, counted.mask(sequences.tokens)):
        tokens = batch.tokens_mS
        loss_mT = next_token_loss(model.logits(tokens), tokens)
        sums.add(*batch.predicted(loss_mT), "model")
        sums.add(*batch.predicted(torch.ones_like(loss_mT)), "predicted")
        mid_mSbD = model.capture(tokens, mids).float()
        post_mSbD = None if batch.whole else model.capture(tokens, posts).float()
        for block in range(model.n_blocks):
            added_D = model.added(block, mean_output_bD[block])
            ablated_BD = batch.counted(mid_mSbD[:, :, block]) + added_D
            own_mSD = None if post_mSbD is None else post_mSbD[:, :, block]
            logits = model.continue_from(block, batch.spread(ablated_BD, own_mSD), tokens)
            sums.add(*batch.predicted(next_token_loss(logits, tokens)), "mean", block)
    mean_bE = np.stack([sums["mean", block] for block in range(model.n_blocks)])
    own = sums["predicted",], sums["model",]
    return ModelBaselines(sequences.text_hash, counted, mean_output_bD, *own, mean_bE)

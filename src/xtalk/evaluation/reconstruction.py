"""How well a crosscoder reconstructs activations, and what the model loses by running on that."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import finite, next_token_loss
from xtalk.reading.explained import Explained, ExplainedBatch

_NOTHING = 1e-6  # of the squared norms, each a float32, which rounding leaves of a constant


@dataclass(frozen=True)
class Spliced:
    """The model run on from a reconstructed residual stream.

    ce: cross-entropy, nat per token; kl: KL(model || spliced) of next-token distributions, nat per token.
    """

    ce: float
    kl: float


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruction on the tokens of a text that count.

    recon: mean over tokens of the squared error summed over hookpoints, in scaled space, as in the training
    loss; fvu: squared error over the variance about the text's mean, in scaled space, all hookpoints
    together, and by hookpoint; l0: active latents per token; dead: latents active on no token; firing_L: the
    fraction of tokens on which each latent is active; spliced: by hookpoint of the residual stream;
    variance_share: the part of the variance, in scaled space, that each hookpoint has; position_share: by
    hookpoint, the part of the squared norms that one position of the sequences has, and which it is.
    """

    tokens: int
    recon: float
    fvu: float
    fvu_by_hookpoint: dict[str, float]
    l0: float
    dead: int
    firing_L: Float[Tensor, "L"]
    spliced: dict[str, Spliced]
    variance_share: dict[str, float]
    position_share: dict[str, tuple[int, float]]


class ReconstructionMeter:
    """Collects reconstruction errors, batch by batch; `factor_P` leads to the scaled space."""

    def __init__(self, explained: Explained, factor_P: Float[Tensor, "P"]) -> None:
        self._explained = explained
        crosscoder = explained.crosscoder
        P, D, L = len(crosscoder.config.hook_names), crosscoder.config.d_in, crosscoder.config.d_sae
        self._factor_P = factor_P.double().cpu()
        self._tokens = 0
        self._predicted = 0
        self._error_P = torch.zeros(P, dtype=torch.float64)
        self._square_P = torch.zeros(P, dtype=torch.float64)
        self._square_SP = torch.zeros(0, P, dtype=torch.float64)  # by position
        self._total_PD = torch.zeros(P, D, dtype=torch.float64)
        self._active_L = torch.zeros(L, dtype=torch.int64)
        self._spliced = {point: torch.zeros(2, dtype=torch.float64) for point in spliceable(explained)}

    def add(self, batch: ExplainedBatch) -> None:
        """Add a batch's errors, and run the model on from each reconstructed residual stream."""
        x_BPD, codes = batch.x_BPD, batch.codes
        self._tokens += len(x_BPD)
        self._error_P += (x_BPD - batch.decoded_BPD).square().sum(2).double().sum(0).cpu()
        square_BP = x_BPD.square().sum(2).double()
        self._square_P += square_BP.sum(0).cpu()
        self._by_position(batch, square_BP.cpu())
        self._total_PD += x_BPD.double().sum(0).cpu()
        active = codes.latents[codes.values > 0]
        self._active_L += torch.bincount(active, minlength=codes.n_latents).cpu()
        self._splice(batch)

    def _by_position(self, batch: ExplainedBatch, square_BP: Float[Tensor, "B P"]) -> None:
        S = batch.batch.tokens_mS.shape[1]
        if not len(self._square_SP):
            self._square_SP = square_BP.new_zeros(S, square_BP.shape[1])
        self._square_SP.index_add_(0, torch.from_numpy(batch.batch.places_B % S), square_BP)

    def _splice(self, batch: ExplainedBatch) -> None:
        if not self._spliced:
            return
        model, tokens, predicted = self._explained.model, batch.batch.tokens_mS, batch.batch.predicted
        model_mTV = finite(model.logits(tokens)[:, :-1]).float().log_softmax(-1)
        self._predicted += predicted(model_mTV[..., 0])[1].size
        for point, sums in self._spliced.items():
            block = point.block if point.site == "resid_post" else point.block - 1
            x_mSD = batch.spliced(batch.decoded_BPD[:, self._explained.index[point]], point)
            logits = finite(model.continue_from(block, x_mSD, tokens))
            ce_mT = next_token_loss(logits, tokens)
            kl_mTV = model_mTV.exp() * (model_mTV - logits[:, :-1].float().log_softmax(-1))
            both = (predicted(loss_mT)[0] for loss_mT in (ce_mT, kl_mTV.sum(-1)))
            sums += torch.stack([loss.double().sum() for loss in both]).cpu()

    def result(self) -> Reconstruction:
        """The figures of all that was added. Errors: XtalkError for a hookpoint at which nothing varies."""
        scale_P, names = self._factor_P.square(), self._explained.crosscoder.config.hook_names
        error_P = self._error_P * scale_P
        variance_P = self._square_P - self._total_PD.square().sum(1) / self._tokens
        for name, varies in zip(names, (variance_P > _NOTHING * self._square_P).tolist(), strict=True):
            if not varies:
                raise XtalkError(
                    f"the activations at {name} are the same at all {self._tokens} tokens, which leaves no "
                    "variance to explain; give more text, or a crosscoder without that hookpoint"
                )
        variance_P *= scale_P
        fvu_P = (error_P / variance_P).tolist()
        largest_P, position_P = (self._square_SP / self._square_P).max(0)
        shares = (variance_P / variance_P.sum()).tolist()
        positions = zip(position_P.tolist(), largest_P.tolist(), strict=True)
        firing_L = self._active_L.double() / self._tokens
        spliced = {
            str(point): Spliced(*(sums / self._predicted).tolist()) for point, sums in self._spliced.items()
        }
        return Reconstruction(
            tokens=self._tokens,
            recon=float(error_P.sum() / self._tokens),
            fvu=float(error_P.sum() / variance_P.sum()),
            fvu_by_hookpoint=dict(zip(names, fvu_P, strict=True)),
            l0=float(firing_L.sum()),
            dead=int((self._active_L == 0).sum()),
            firing_L=firing_L.float(),
            spliced=spliced,
            variance_share=dict(zip(names, shares, strict=True)),
            position_share=dict(zip(names, positions, strict=True)),
        )


def spliceable(explained: Explained) -> Sequence[Hookpoint]:
    """The crosscoder's hookpoints between blocks, from which the model can be run on."""
    return [
        point
        for point in explained.hookpoints
        if point.site == "resid_post" or (point.site == "resid_pre" and point.block > 0)
    ]

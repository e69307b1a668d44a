"""A crosscoder read in a model: activations, codes, and contributions to the MLPs, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations.harvest import check_finite
from xtalk.codes import Codes
from xtalk.crosscoder.config import unmeasured
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.hookpoints import Hookpoint, Site
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights
from xtalk.reading.batches import Batch
from xtalk.reading.ranked import RankedContributions


class Encoded:
    """A crosscoder and what it reads: one model, several at once, or the difference of two.

    The crosscoder is in the model's own units; hookpoints: its own, in order.
    """

    def __init__(
        self, source: CapturingModel, crosscoder: Crosscoder, hookpoints: Sequence[Hookpoint]
    ) -> None:
        if refusal := unmeasured(crosscoder.config):
            raise XtalkError(f"{refusal}; give an SAE or a crosscoder without")
        self.source = source
        self.crosscoder = crosscoder
        self.hookpoints = tuple(hookpoints)
        self.index = {hookpoint: p for p, hookpoint in enumerate(self.hookpoints)}

    def activations(self, batch: Batch, beside: Sequence[Hookpoint] = ()) -> Float[Tensor, "m S Q D"]:
        """Activations at the own hookpoints, then at others. Errors: XtalkError for NaN or infinity."""
        read = (*self.hookpoints, *beside)
        captured_mSQD = self.source.capture(batch.tokens_mS, read)
        check_finite(captured_mSQD, list(map(str, read)))
        return captured_mSQD

    def codes(self, batch: Batch) -> Codes:
        """The codes of the tokens that count. Errors: XtalkError for NaN or infinity."""
        return self.crosscoder.encode_sparse(batch.counted(self.activations(batch)).float())


class Explained(Encoded):
    """A crosscoder at the hookpoints of a language model, and the MLPs whose input it decodes."""

    def __init__(self, model: LanguageModel, crosscoder: Crosscoder) -> None:
        super().__init__(model, crosscoder, list(map(model.hookpoint, crosscoder.config.hook_names)))
        self.model = model

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """The blocks whose MLP input the crosscoder decodes. Errors: XtalkError if there is none."""
        found = tuple(b for b in range(self.model.n_blocks) if Hookpoint(b, "ln2") in self.index)
        if not found:
            raise XtalkError(
                f"the crosscoder has no ln2 hookpoint among {', '.join(map(str, self.hookpoints))}; "
                "interactions and fidelity need the MLPs' inputs; train it on them"
            )
        return found

    def around_mlps(self, batch: Batch) -> list[Hookpoint]:
        """What is read beside to rebuild those MLPs' outputs: what they are added to, and the sums.

        The sums, the model's own, only where some tokens do not count and keep them.
        """
        sites: tuple[Site, ...] = ("resid_mid",) if batch.whole else ("resid_mid", "resid_post")
        return [Hookpoint(block, site) for block in self.blocks for site in sites]

    @cached_property
    def mlps(self) -> dict[int, MlpWeights]:
        """The MLPs of those blocks."""
        return {block: self.model.mlp_weights(block) for block in self.blocks}

    def contributions(self, codes: Codes) -> Iterator[tuple[int, RankedContributions]]:
        """What codes contribute to the MLP of each block, one block after the other."""
        W_dec, b_dec = self.crosscoder.W_dec, self.crosscoder.b_dec
        there = Codes(codes.latents.to(W_dec.device), codes.values.to(W_dec), codes.n_latents)
        for block, mlp in self.mlps.items():
            p = self.index[Hookpoint(block, "ln2")]
            yield block, RankedContributions(W_dec[:, p], b_dec[p], there, mlp)

    def read(self, batch: Batch, beside: Sequence[Hookpoint] = ()) -> "ExplainedBatch":
        """What the model and the crosscoder make of a batch, with activations at other hookpoints `beside`.

        Errors: XtalkError for NaN or infinity.
        """
        extra = tuple(point for point in beside if point not in self.index)
        captured_mSQD = self.activations(batch, extra).float()
        x_BPD = batch.counted(captured_mSQD)[:, : len(self.hookpoints)]
        everywhere = {point: captured_mSQD[:, :, q] for q, point in enumerate((*self.hookpoints, *extra))}
        return ExplainedBatch(self, batch, x_BPD, everywhere, self.crosscoder.encode_sparse(x_BPD))


@dataclass(frozen=True)
class ExplainedBatch:
    """Activations of the B tokens of a batch that count, their codes, and what those decode to.

    everywhere: activations by hookpoint, of tokens that do not count too.
    """

    explained: Explained
    batch: Batch
    x_BPD: Float[Tensor, "B P D"]
    everywhere: dict[Hookpoint, Float[Tensor, "m S D"]]
    codes: Codes

    @cached_property
    def decoded_BPD(self) -> Float[Tensor, "B P D"]:
        """The reconstruction of `x_BPD`."""
        return self.explained.crosscoder.decode(self.codes)

    @cached_property
    def documents_B(self) -> Int[np.ndarray, "B"]:
        """The document of every token."""
        return self.batch.documents_mS[self.batch.counted_mS]

    @cached_property
    def contributions(self) -> dict[int, RankedContributions]:
        """The contributions to each block's MLP whose input the crosscoder decodes."""
        return dict(self.explained.contributions(self.codes))

    def captured(self, point: Hookpoint) -> Float[Tensor, "B D"]:
        """The activations at a hookpoint that was read."""
        return self.batch.counted(self.everywhere[point])

    def spliced(self, x_BD: Float[Tensor, "B D"], point: Hookpoint) -> Float[Tensor, "m S D"]:
        """Sequences with x at a hookpoint; tokens that do not count keep the model's own activations."""
        return self.batch.spread(x_BD, None if self.batch.whole else self.everywhere[point])

    @cached_property
    def codes_everywhere(self) -> Codes:
        """The codes of all tokens, m S; nothing is active at those that do not count."""
        if self.batch.whole:
            return self.codes
        codes, spread = self.codes, self.batch.spread
        return Codes(spread(codes.latents).flatten(0, 1), spread(codes.values).flatten(0, 1), codes.n_latents)

"""A crosscoder read in a model: activations, codes, and contributions to the MLPs, batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xtalk.activations.harvest import check_finite
from xtalk.activations.harvest import micro_batch as capture_batch
from xtalk.codes import Codes
from xtalk.crosscoder.config import unmeasured
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.hookpoints import Hookpoint, Site
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import Batch, batches
from xtalk.reading.one_by_one import OneByOne
from xtalk.reading.places import ErrorNode, Place, find_places
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
    """A crosscoder at the hookpoints of a language model, and the MLPs that it has contributions to.

    error: whether what the crosscoder leaves out of what it reads stays in the contributions' base ("keep":
    what the model computes) or not ("drop": what the crosscoder explains).
    """

    def __init__(self, model: LanguageModel, crosscoder: Crosscoder, error: ErrorNode = "drop") -> None:
        super().__init__(model, crosscoder, list(map(model.hookpoint, crosscoder.config.hook_names)))
        self.model = model
        self.error: ErrorNode = error

    @cached_property
    def _places(self) -> dict[int, Place]:
        return find_places(self.model, self.index)

    @property
    def places(self) -> dict[int, Place]:
        """Where the crosscoder is read in front of each block's MLP. Errors: XtalkError if nowhere."""
        if not self._places:
            raise XtalkError(
                f"the crosscoder has no hookpoint in front of an MLP among "
                f"{', '.join(map(str, self.hookpoints))}; interactions and fidelity need ln2 of a block, or "
                "the residual stream before it: resid_mid, resid_pre, or resid_post of the block before"
            )
        return self._places

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks of those MLPs. Errors: XtalkError if there is none."""
        return tuple(self.places)

    def batches(
        self,
        sequences: TokenSequences,
        counted_nS: Bool[np.ndarray, "n S"],
        micro_batch: int | None = None,
    ) -> Iterator[Batch]:
        """The text in batches; by default as large as run well, and as the activations to be read fit in."""
        if micro_batch is None:
            read = len(self.hookpoints) + 2 * len(self.blocks)
            of_capture = capture_batch(sequences.length, read, self.model.d_model, self.model.device)
            micro_batch = min(of_capture, self.model.sequences_at_once(sequences.length))
        return batches(self.model, sequences, micro_batch, counted_nS)

    def around_mlps(self, batch: Batch) -> list[Hookpoint]:
        """What is read beside to rebuild those MLPs' outputs: what they are added to, and the sums.

        The sums, the model's own, only where some tokens do not count and keep them.
        """
        sites: tuple[Site, ...] = ("resid_mid",) if batch.whole else ("resid_mid", "resid_post")
        return [Hookpoint(block, site) for block in self.blocks for site in sites]

    @cached_property
    def streams(self) -> tuple[Hookpoint, ...]:
        """What contributions need of the model beside the codes: where the norms in front of MLPs read."""
        needed = (place.stream for place in self._places.values() if place.needs_stream(self.error))
        return tuple(dict.fromkeys(needed))

    @torch.no_grad()
    def streams_at(
        self, sequences: TokenSequences, places_B: Int[np.ndarray, "B"]
    ) -> dict[Hookpoint, Float[Tensor, "B D"]]:
        """The model's activations at `streams`, at some places of the flattened text, ascending."""
        read: list[Tensor] = []
        if not self.streams:
            return {}
        for batch in batches(self.model, sequences, counted_nS=_marked(sequences, places_B)):
            if batch.counted_mS.any():
                read.append(batch.counted(self.model.capture(batch.tokens_mS, self.streams)).float())
        return dict(zip(self.streams, torch.cat(read).unbind(1), strict=True))

    def directions(self, block: int) -> Float[Tensor, "L D"]:
        """The latents' directions at the place in front of a block's MLP."""
        return self.crosscoder.W_dec[:, self.index[self.places[block].point]]

    def decoder(self, block: int) -> Float[Tensor, "L D"]:
        """The latents' directions at a block's MLP input: through a norm, before its scale."""
        return self.places[block].decoder(self.directions(block))

    def contributions(
        self, codes: Codes, streams: Mapping[Hookpoint, Float[Tensor, "B D"]]
    ) -> OneByOne[int, RankedContributions]:
        """What codes contribute to the MLP of each block; only the block that was asked for last is held.

        streams: the model's activations at `streams`, of the codes' tokens.
        """
        W_dec, b_dec = self.crosscoder.W_dec, self.crosscoder.b_dec
        there = Codes(codes.latents.to(W_dec.device), codes.values.to(W_dec), codes.n_latents)

        def made(block: int) -> RankedContributions:
            place = self.places[block]
            p = self.index[place.point]
            stream_BD = streams[place.stream] if place.needs_stream(self.error) else None
            return place.contributions(W_dec[:, p], b_dec[p], there, stream_BD, self.error)

        return OneByOne(self.places, made)

    def read(self, batch: Batch, beside: Sequence[Hookpoint] = ()) -> "ExplainedBatch":
        """What the model and the crosscoder make of a batch, with activations at other hookpoints `beside`.

        Errors: XtalkError for NaN or infinity.
        """
        wanted = dict.fromkeys((*beside, *self.streams))
        extra = tuple(point for point in wanted if point not in self.index)
        captured_mSQD = self.activations(batch, extra).float()
        x_BPD = batch.counted(captured_mSQD)[:, : len(self.hookpoints)]
        everywhere = {point: captured_mSQD[:, :, q] for q, point in enumerate((*self.hookpoints, *extra))}
        return ExplainedBatch(self, batch, x_BPD, everywhere, self.crosscoder.encode_sparse(x_BPD))


def _marked(sequences: TokenSequences, places_B: Int[np.ndarray, "B"]) -> Bool[np.ndarray, "n S"]:
    marked_B = np.zeros(sequences.tokens.size, dtype=bool)
    marked_B[places_B] = True
    return marked_B.reshape(sequences.tokens.shape)


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
    def contributions(self) -> OneByOne[int, RankedContributions]:
        """The contributions to each block's MLP; only the block that was asked for last is held."""
        streams = {point: self.captured(point) for point in self.explained.streams}
        return self.explained.contributions(self.codes, streams)

    def mlp_input(self, block: int) -> Float[Tensor, "B D"]:
        """What the model's own MLP reads in a block."""
        place = self.explained.places[block]
        return place.mlp_input(self.captured(place.stream))

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

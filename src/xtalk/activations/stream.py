"""Batches of activations in a seeded order that can be resumed bit for bit."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from xtalk.activations.harvest import Harvest, SourceIdentity
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.hookpoints import Hookpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of B tokens, in the model's own scale, with where each token stands.

    Token b is `tokens[b]`, at `positions[b]` of sequence `sequences[b]` of the source's token sequences.
    """

    activations: Float32[Tensor, "B P D"]
    tokens: Int64[Tensor, "B"]
    sequences: Int64[Tensor, "B"]
    positions: Int64[Tensor, "B"]


@runtime_checkable
class ActivationSource(Protocol):
    """Activations by sequence: a `Harvest` of a model, or an `ActivationStore`."""

    identity: SourceIdentity
    sequences: TokenSequences
    d_model: int

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Activations of the sequences `rows`, in that order, in parts."""
        ...


@dataclass(frozen=True)
class _Buffer:
    """The activations of some sequences (N tokens), and the order in which its tokens are given out."""

    number: int
    rows: np.ndarray
    activations_NPD: Tensor
    order_N: np.ndarray


class ActivationBatches:
    """Batches of exactly `batch_tokens` tokens of a source, float32 and unscaled, on the source's device.

    Sequences come in a random order, and tokens mixed within a buffer of `buffer_sequences` sequences, all
    decided by `seed`. Every token comes once per epoch, and iteration ends after `epochs`: no token is
    repeated unless that is asked for. Tokens that fill no last batch are left out. `skip_positions` leaves
    out the first positions of every sequence: GPT-2's and Llama's activations there are so large that they
    would rule any squared error. Raises XtalkError when there is not enough text for one batch.
    """

    def __init__(
        self,
        source: ActivationSource,
        batch_tokens: int,
        seed: int,
        buffer_sequences: int = 64,
        epochs: int = 1,
        skip_positions: int = 0,
    ) -> None:
        self.source = source
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.buffer_sequences = buffer_sequences
        self.epochs = epochs
        self.skip_positions = skip_positions
        self.tokens_seen = 0
        self._per_sequence = source.sequences.length - skip_positions
        if min(batch_tokens, buffer_sequences, epochs, self._per_sequence) < 1 or skip_positions < 0:
            raise XtalkError(
                f"{batch_tokens} tokens per batch, {buffer_sequences} sequences per buffer, {epochs} epochs, "
                f"{skip_positions} of {source.sequences.length} positions skipped; expected 1 or more of the "
                "first three and at least one position left"
            )
        if not self.tokens_available:
            raise XtalkError(
                f"the text has {epochs * self._epoch_tokens} tokens; one batch takes {batch_tokens}; "
                "give more text or a smaller batch"
            )
        self._buffer: _Buffer | None = None
        self._storage: Tensor | None = None

    @property
    def tokens_available(self) -> int:
        """Tokens that the stream gives from its start to its end, in whole batches."""
        return self.epochs * self._epoch_tokens // self.batch_tokens * self.batch_tokens

    def __iter__(self) -> "ActivationBatches":
        return self

    def __next__(self) -> ActivationBatch:
        if self.tokens_seen >= self.tokens_available:
            raise StopIteration
        pieces: list[ActivationBatch] = []
        end = self.tokens_seen + self.batch_tokens
        while self.tokens_seen < end:
            pieces.append(self._take(end - self.tokens_seen))
            self.tokens_seen += len(pieces[-1].tokens)
        return pieces[0] if len(pieces) == 1 else _joined(pieces)

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream and what it depends on: numbers and strings, ready for JSON."""
        return {
            "tokens_seen": self.tokens_seen,
            "seed": self.seed,
            "batch_tokens": self.batch_tokens,
            "buffer_sequences": self.buffer_sequences,
            "skip_positions": self.skip_positions,
            "model": self.source.identity.model,
            "text": self.source.identity.text,
            "hookpoints": list(self.source.identity.hookpoints),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position, bit for bit. Raises XtalkError for the state of another stream."""
        own = self.state_dict()
        for key in own.keys() - {"tokens_seen"}:
            if state.get(key) != own[key]:
                raise XtalkError(
                    f"the saved position is of a stream with {key} {state.get(key)}; this one has "
                    f"{own[key]}; go on with the configuration, model and text that it was saved with"
                )
        self.tokens_seen = int(state["tokens_seen"])

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Leave the stream where it was, whatever happens inside: what is read there is not used up."""
        start = self.state_dict()
        try:
            yield
        finally:
            self.load_state_dict(start)

    @property
    def _epoch_tokens(self) -> int:
        return len(self.source.sequences) * self._per_sequence

    def _take(self, most: int) -> ActivationBatch:
        """The stream's next tokens, up to `most` of them and up to the end of their buffer."""
        epoch, token = divmod(self.tokens_seen, self._epoch_tokens)
        place, offset = divmod(token, self.buffer_sequences * self._per_sequence)
        buffers_per_epoch = math.ceil(len(self.source.sequences) / self.buffer_sequences)
        number = epoch * buffers_per_epoch + place
        if self._buffer is None or self._buffer.number != number:
            if token == 0 and epoch == 1:
                logger.warning("every token has been seen; the text is read up to %d times", self.epochs)
            self._buffer = self._fill(number, epoch, place)
        buffer = self._buffer
        chosen_b = buffer.order_N[offset : offset + most]
        device = buffer.activations_NPD.device
        picked_bPD = buffer.activations_NPD.index_select(0, torch.from_numpy(chosen_b).to(device))
        sequences_b = buffer.rows[chosen_b // self._per_sequence]
        positions_b = chosen_b % self._per_sequence + self.skip_positions
        tokens_b = self.source.sequences.tokens[sequences_b, positions_b].astype(np.int64)
        where = (torch.from_numpy(array).to(device) for array in (tokens_b, sequences_b, positions_b))
        return ActivationBatch(picked_bPD.float(), *where)

    def _fill(self, number: int, epoch: int, place: int) -> _Buffer:
        """Read the sequences of one buffer, into the memory of the buffer before."""
        self._buffer = None  # its memory is written over; a read that fails must not leave it in use
        order_n = np.random.default_rng([self.seed, epoch]).permutation(len(self.source.sequences))
        rows = order_n[place * self.buffer_sequences : (place + 1) * self.buffer_sequences]
        filled = 0
        for part_mSPD in self.source.read(rows):
            kept_mSPD = part_mSPD[:, self.skip_positions :]
            if self._storage is None:
                self._storage = kept_mSPD.new_empty(self.buffer_sequences, *kept_mSPD.shape[1:])
            self._storage[filled : filled + len(kept_mSPD)] = kept_mSPD
            filled += len(kept_mSPD)
        assert self._storage is not None and filled == len(rows)
        activations_NPD = self._storage[:filled].flatten(0, 1)
        order_N = np.random.default_rng([self.seed, epoch, place + 1]).permutation(len(activations_NPD))
        return _Buffer(number, rows, activations_NPD, order_N)


def _joined(pieces: list[ActivationBatch]) -> ActivationBatch:
    return ActivationBatch(
        torch.cat([piece.activations for piece in pieces]),
        torch.cat([piece.tokens for piece in pieces]),
        torch.cat([piece.sequences for piece in pieces]),
        torch.cat([piece.positions for piece in pieces]),
    )


class ActivationStream(ActivationBatches):
    """Batches of activations harvested from a model as they are asked for; nothing is stored.

    Memory: one buffer, `buffer_sequences` x S x P x D numbers of the model's dtype. See `ActivationBatches`.
    """

    def __init__(
        self,
        model: CapturingModel,
        sequences: TokenSequences,
        hookpoints: Sequence[Hookpoint],
        batch_tokens: int,
        seed: int,
        buffer_sequences: int = 64,
        epochs: int = 1,
        skip_positions: int = 0,
    ) -> None:
        source = Harvest(model, sequences, hookpoints)
        super().__init__(source, batch_tokens, seed, buffer_sequences, epochs, skip_positions)

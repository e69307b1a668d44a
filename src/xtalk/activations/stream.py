"""Batches of activations in a seeded order that can be resumed bit for bit."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from xtalk import ranks
from xtalk.activations.harvest import Harvest, SourceIdentity
from xtalk.data import ALL, Counted, TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.hookpoints import Hookpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of B tokens, in the model's own scale, with where each token stands.

    Token b is `tokens[b]`, at `positions[b]` of sequence `sequences[b]` of the source's token sequences.
    Where several ranks share a stream, these are the tokens of this rank's sequences.
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
    """The N tokens of some sequences that count: where they stand, in what order, this rank's activations.

    sequences_N, positions_N: of each token in the source; order_N: in which the tokens are given out;
    place_N: of each token in `activations_nPD`, -1 for those of other ranks; share: which rank of how many.
    """

    number: int
    share: tuple[int, int]
    sequences_N: np.ndarray
    positions_N: np.ndarray
    order_N: np.ndarray
    place_N: np.ndarray
    activations_nPD: Tensor


@dataclass(frozen=True)
class _Epoch:
    """An epoch's order of sequences; at which of its tokens each buffer starts, and the last one ends."""

    number: int
    order_n: np.ndarray
    starts: np.ndarray


class ActivationBatches:
    """Batches of exactly `batch_tokens` tokens of a source, float32 and unscaled, on the source's device.

    Sequences come in a random order, and tokens mixed within a buffer of `buffer_sequences` sequences, all
    decided by `seed`. Every token that counts comes once per epoch, and iteration ends after `epochs`: no
    token is repeated unless that is asked for. Tokens that fill no last batch are left out. Several ranks
    (`xtalk.ranks`) share every buffer's sequences: together their batches are those of one. Raises XtalkError
    when there is not enough text for one batch, or more ranks than sequences.
    """

    def __init__(
        self,
        source: ActivationSource,
        batch_tokens: int,
        seed: int,
        buffer_sequences: int = 64,
        epochs: int = 1,
        counted: Counted = ALL,
    ) -> None:
        self.source = source
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.buffer_sequences = buffer_sequences
        self.epochs = epochs
        self.counted = counted
        self.tokens_seen = 0
        if min(batch_tokens, buffer_sequences, epochs) < 1:
            raise XtalkError(
                f"{batch_tokens} tokens per batch, {buffer_sequences} sequences per buffer, {epochs} epochs; "
                "expected 1 or more of each"
            )
        self._per_sequence_n = counted.mask(source.sequences.tokens).sum(1)
        self._epoch_tokens = int(self._per_sequence_n.sum())
        if not self._epoch_tokens:
            raise XtalkError(
                f"no token counts: {counted.skip_positions} of {source.sequences.length} positions are "
                f"skipped, and {len(counted.skip_tokens)} tokens; skip fewer"
            )
        if not self.tokens_available:
            raise XtalkError(
                f"the text has {epochs * self._epoch_tokens} tokens; one batch takes {batch_tokens}; "
                "give more text or a smaller batch"
            )
        shared = min(buffer_sequences, len(source.sequences))
        if shared < ranks.world():
            raise XtalkError(
                f"{ranks.world()} processes share {shared} sequences at a time; expected as many sequences; "
                "start fewer processes, or set harvest.buffer_sequences higher"
            )
        self._epoch: _Epoch | None = None
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
            piece, tokens = self._take(end - self.tokens_seen)
            pieces.append(piece)
            self.tokens_seen += tokens
        return pieces[0] if len(pieces) == 1 else _joined(pieces)

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream and what it depends on: numbers and strings, ready for JSON."""
        return {
            "tokens_seen": self.tokens_seen,
            "seed": self.seed,
            "batch_tokens": self.batch_tokens,
            "buffer_sequences": self.buffer_sequences,
            "skip_positions": self.counted.skip_positions,
            "skip_tokens": sorted(self.counted.skip_tokens),
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

    def _take(self, most: int) -> tuple[ActivationBatch, int]:
        """The stream's next tokens, up to `most` of them and up to the end of their buffer; how many."""
        number, token = divmod(self.tokens_seen, self._epoch_tokens)
        epoch = self._in_order(number)
        place = int(np.searchsorted(epoch.starts, token, side="right")) - 1
        buffer_number = number * (len(epoch.starts) - 1) + place
        wanted = buffer_number, (ranks.rank(), ranks.world())
        if self._buffer is None or (self._buffer.number, self._buffer.share) != wanted:
            if token == 0 and number == 1:
                logger.warning("every token has been seen; the text is read up to %d times", self.epochs)
            self._buffer = self._fill(buffer_number, epoch, place)
        buffer, offset = self._buffer, token - int(epoch.starts[place])
        given_b = buffer.order_N[offset : offset + most]
        chosen_b = given_b[buffer.place_N[given_b] >= 0]
        device = buffer.activations_nPD.device
        places_b = torch.from_numpy(buffer.place_N[chosen_b]).to(device)
        picked_bPD = buffer.activations_nPD.index_select(0, places_b)
        sequences_b, positions_b = buffer.sequences_N[chosen_b], buffer.positions_N[chosen_b]
        tokens_b = self.source.sequences.tokens[sequences_b, positions_b].astype(np.int64)
        where = (torch.from_numpy(array).to(device) for array in (tokens_b, sequences_b, positions_b))
        return ActivationBatch(picked_bPD.float(), *where), len(given_b)

    def _in_order(self, number: int) -> _Epoch:
        """The epoch of that number; made once."""
        if self._epoch is None or self._epoch.number != number:
            order_n = np.random.default_rng([self.seed, number]).permutation(len(self.source.sequences))
            ends_n = self._per_sequence_n[order_n].cumsum()
            last = np.arange(self.buffer_sequences, len(order_n), self.buffer_sequences) - 1
            starts = np.concatenate([[0], ends_n[last], ends_n[-1:]])
            self._epoch = _Epoch(number, order_n, starts)
        return self._epoch

    def _fill(self, number: int, epoch: _Epoch, place: int) -> _Buffer:
        """Read this rank's sequences of one buffer, into the memory of the buffer before."""
        self._buffer = None  # its memory is written over; a read that fails must not leave it in use
        rows = epoch.order_n[place * self.buffer_sequences : (place + 1) * self.buffer_sequences]
        counted_nS = self.counted.mask(self.source.sequences.tokens[rows])
        row_N, positions_N = counted_nS.nonzero()
        share = ranks.rank(), ranks.world()
        own_n = np.arange(len(rows)) % share[1] == share[0]
        own_N = own_n[row_N]
        place_N = np.where(own_N, own_N.cumsum() - 1, -1)
        if self._storage is None and not own_n.any():  # fewer sequences than ranks are left
            self._store(rows[:1], np.zeros_like(counted_nS[:1]))
        filled = self._store(rows[own_n], counted_nS[own_n])
        assert self._storage is not None and filled == own_N.sum()
        order_N = np.random.default_rng([self.seed, epoch.number, place + 1]).permutation(len(row_N))
        return _Buffer(number, share, rows[row_N], positions_N, order_N, place_N, self._storage[:filled])

    def _store(self, rows: np.ndarray, counted_nS: np.ndarray) -> int:
        """Put the activations of sequences at tokens that count into the buffer's memory; how many."""
        read, filled = 0, 0
        for part_mSPD in self.source.read(rows):
            counted_mS = counted_nS[read : read + len(part_mSPD)]
            kept_bPD = part_mSPD.flatten(0, 1)
            if not counted_mS.all():
                kept_bPD = part_mSPD[torch.from_numpy(counted_mS).to(part_mSPD.device)]
            most = -(-self.buffer_sequences // ranks.world()) * int(self._per_sequence_n.max())
            if self._storage is None or len(self._storage) < most:
                self._storage = kept_bPD.new_empty(most, *kept_bPD.shape[1:])
            self._storage[filled : filled + len(kept_bPD)] = kept_bPD
            read, filled = read + len(part_mSPD), filled + len(kept_bPD)
        return filled


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
        counted: Counted = ALL,
    ) -> None:
        source = Harvest(model, sequences, hookpoints)
        super().__init__(source, batch_tokens, seed, buffer_sequences, epochs, counted)

"""Documents as token ids, in memory that their lengths do not decide."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64
from transformers import PreTrainedTokenizerBase

CHARACTERS = 1 << 20  # encoded at once: a tokenizer takes some 50 bytes for each
_DOCUMENT = 1 << 6  # characters that take as much memory as a document has beside its text
_SHARED = 1 << 10  # characters at the end of a piece that the next one begins with
_ALIKE = 16  # tokens that two pieces must read alike before the second goes on for the first


def encode_documents(
    docs: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Int32[np.ndarray, "_"]]:
    """The token ids of every document, in order, without special tokens.

    Documents are encoded together up to a number of characters, longer ones in pieces that overlap.
    """
    held: list[str] = []
    size = 0
    for text in docs:
        if held and size + len(text) > CHARACTERS:
            yield from _together(held, tokenizer)
            held, size = [], 0
        if len(text) > CHARACTERS and tokenizer.is_fast:
            yield _in_pieces(text, tokenizer)
        else:
            held.append(text)
            size += len(text) + _DOCUMENT
    if held:
        yield from _together(held, tokenizer)


def _together(docs: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Int32[np.ndarray, "_"]]:
    encoded = tokenizer(docs, add_special_tokens=False, verbose=False)["input_ids"]
    return (np.array(ids, dtype=np.int32) for ids in encoded)


@dataclass(frozen=True)
class _Piece:
    """The tokens of a stretch of a document, and the character at which each begins."""

    ids: Int32[np.ndarray, "_"]
    begins: Int64[np.ndarray, "_"]

    def since(self, character: int) -> "_Piece":
        """The tokens that begin at this character or later."""
        first = int(np.searchsorted(self.begins, character))
        return _Piece(self.ids[first:], self.begins[first:])


def _in_pieces(text: str, tokenizer: PreTrainedTokenizerBase) -> Int32[np.ndarray, "_"]:
    """The ids of a long document; each piece takes over from the one before where both read alike.

    Where they never do (a run of one character, say) the one before is read again, twice as long.
    """

    def read(start: int, stop: int) -> _Piece:
        encoded = tokenizer(
            text[start:stop], add_special_tokens=False, verbose=False, return_offsets_mapping=True
        )
        begins = np.array([begin for begin, _ in encoded["offset_mapping"]], dtype=np.int64) + start
        return _Piece(np.array(encoded["input_ids"], dtype=np.int32), begins)

    whole: list[np.ndarray] = []
    start, stop, taken = 0, CHARACTERS, 0  # the piece, and the character from which its tokens count
    piece = read(start, stop)
    while stop < len(text):
        after = read(stop - _SHARED, stop - _SHARED + CHARACTERS)
        cut = _take_over(piece, after)
        if cut is None:
            stop += stop - start
            piece = read(start, stop).since(taken)
            continue
        whole.append(piece.ids[: np.searchsorted(piece.begins, cut)])
        start, stop, taken = stop - _SHARED, stop - _SHARED + CHARACTERS, cut
        piece = after.since(cut)
    return np.concatenate([*whole, piece.ids])


def _take_over(piece: _Piece, after: _Piece) -> int | None:
    """The first character from which two overlapping pieces have enough tokens alike."""
    for character in after.begins[: len(after.begins) - _ALIKE].tolist():
        own = piece.since(character)
        if len(own.ids) < _ALIKE:
            return None
        theirs = after.since(character)
        if np.array_equal(own.ids[:_ALIKE], theirs.ids[:_ALIKE]) and np.array_equal(
            own.begins[:_ALIKE], theirs.begins[:_ALIKE]
        ):
            return character
    return None

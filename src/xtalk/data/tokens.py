"""Documents packed into token sequences of one length."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase

from xtalk.data.encoding import encode_documents
from xtalk.data.start import start_token
from xtalk.errors import XtalkError

UNLABELLED = -100  # in place of a token to predict: nothing is to be learnt there


@dataclass(frozen=True)
class TokenSequences:
    """Token sequences of one length, with the number of the document that every token comes from.

    `text_hash` is the sha256 of tokens, documents and their shape: exactly what a model reads.
    """

    tokens: Int32[np.ndarray, "n S"]
    documents: Int32[np.ndarray, "n S"]
    text_hash: str

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return self.tokens.shape[1]


def token_sequences(tokens: Int32[np.ndarray, "n S"], documents: Int32[np.ndarray, "n S"]) -> TokenSequences:
    """Token sequences with their hash."""
    digest = hashlib.sha256(repr(tokens.shape).encode())
    for array in (tokens, documents):
        digest.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
    return TokenSequences(tokens, documents, digest.hexdigest())


def tokenise(docs: list[str], tokenizer: PreTrainedTokenizerBase, length: int) -> TokenSequences:
    """Pack documents into sequences of `length` tokens, one after the other.

    Each document is preceded by the tokenizer's `start_token`, if it has one and the document does not begin
    with it already, as conversations in a chat template may. Special tokens that stand in the text are
    themselves. A document may go on in the next sequence; the last, incomplete sequence is dropped. Raises
    XtalkError when the text does not fill one sequence.
    """
    if length < 1:
        raise XtalkError(f"sequence length {length}; expected 1 or more")
    start = start_token(tokenizer)
    prefix = np.array([] if start is None else [start], dtype=np.int32)
    pieces = [
        ids if len(ids) and ids[0] == start else np.concatenate([prefix, ids])
        for ids in encode_documents(docs, tokenizer)
    ]
    return pack(pieces, length)


def pack(pieces: Sequence[Int32[np.ndarray, "_"]], length: int) -> TokenSequences:
    """Documents, as token ids, one after the other in sequences of `length` tokens; the last is dropped."""
    counts = [len(piece) for piece in pieces]
    n = sum(counts) // length
    if n == 0:
        raise XtalkError(
            f"the text has {sum(counts)} tokens; one sequence needs {length}; "
            "give more text or a shorter sequence length"
        )
    tokens = np.concatenate(pieces)[: n * length].reshape(n, length)
    documents = np.repeat(np.arange(len(pieces), dtype=np.int32), counts)[: n * length].reshape(n, length)
    return token_sequences(tokens, documents)

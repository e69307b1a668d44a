"""Text to documents, and documents to token sequences."""

from xtalk.data.chat import Render, renderer
from xtalk.data.counted import ALL, Counted
from xtalk.data.documents import TextSource, distinct, read_documents, read_start, split_documents, without
from xtalk.data.start import start_token
from xtalk.data.token_texts import token_texts
from xtalk.data.tokens import TokenSequences, token_sequences, tokenise

__all__ = [
    "ALL",
    "Counted",
    "Render",
    "TextSource",
    "TokenSequences",
    "distinct",
    "read_documents",
    "read_start",
    "renderer",
    "split_documents",
    "start_token",
    "token_sequences",
    "token_texts",
    "tokenise",
    "without",
]

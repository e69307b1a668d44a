"""The text of tokens, as it stands in the text that they are of."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how tokenizers with byte fallback write a byte
_SPACE = "▁"  # how they write a space


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, inside: bool = False) -> list[str]:
    """The text of each of successive tokens; joined, they are the text of all.

    inside: they stand inside a text, so that a space that the first begins with stays; some tokenizers write
    one before a text too, which is no part of it. A character of several tokens belongs to the last of them;
    bytes that make no character within `ids` are written as bytes, such as `<0xC3>`. An id that the
    tokenizer does not have is written as its number, such as `<50300>`.
    """
    ids = list(ids)
    found = cast(list[str | None], tokenizer.convert_ids_to_tokens(ids))
    if None not in found:
        return _known_texts(tokenizer, ids, [str(token) for token in found], inside)
    texts: list[str] = []  # the model has rows beyond the tokenizer's vocabulary
    for known, run in groupby(zip(ids, found, strict=True), key=lambda pair: pair[1] is not None):
        some = [number for number, _ in run]
        texts += (
            token_texts(tokenizer, some, inside=inside or bool(texts)) if known else map("<{}>".format, some)
        )
    return texts


def _known_texts(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], tokens: list[str], inside: bool
) -> list[str]:
    backend = cast(Tokenizer, tokenizer.backend_tokenizer) if tokenizer.is_fast else None
    if backend is not None and "ByteLevel" in repr(backend.decoder):
        return _characters([_byte_level(token) for token in tokens])
    pieces = [_piece(tokenizer, ids, tokens[place], place) for place in range(len(ids))]
    if inside and ids and tokens[0].startswith(_SPACE) and not pieces[0].startswith(b" "):
        pieces[0] = b" " + pieces[0]
    return _characters(pieces)


def _piece(tokenizer: PreTrainedTokenizerBase, ids: list[int], token: str, place: int) -> bytes:
    """What one token adds to the text of the token before it, as bytes."""
    if match := _BYTE.fullmatch(token):
        return bytes([int(match[1], 16)])

    def text(first: int, stop: int) -> str:
        return str(tokenizer.decode(ids[first:stop], clean_up_tokenization_spaces=False))

    before = max(0, place - 1)
    return text(before, place + 1)[len(text(before, place)) :].encode()


def _byte_level(token: str) -> bytes:
    """The bytes of a token of a byte-level tokenizer; an added token stands for its own text."""
    if all(character in _ALPHABET for character in token):
        return bytes(_ALPHABET[character] for character in token)
    return token.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's: printable characters stand for themselves, the other bytes for those from U+0100 on."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _characters(pieces: Sequence[bytes]) -> list[str]:
    """Pieces of UTF-8 as text: a character in the piece that completes it, bytes of none as `<0xC3>`."""
    whole = b"".join(pieces)
    owners = [number for number, piece in enumerate(pieces) for _ in piece]
    texts, at = [""] * len(pieces), 0
    while at < len(whole):
        character, length = _first_character(whole[at : at + 4])
        texts[owners[at + length - 1]] += character
        at += length
    return texts


def _first_character(data: bytes) -> tuple[str, int]:
    for length in range(1, len(data) + 1):
        try:
            return data[:length].decode(), length
        except UnicodeDecodeError:
            continue
    return f"<0x{data[0]:02X}>", 1

"""The text of tokens, for the kinds of tokenizers that models come with."""

import pytest
from data.test_encoding import TOKENIZERS
from data.test_tokens import word_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xtalk.data import token_texts

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def metaspace() -> PreTrainedTokenizerFast:
    """Llama 2's kind: spaces as U+2581, bytes for unknown characters, one space stripped from the start."""
    words = {"<unk>": 0, "▁a": 1, "a": 2, "▁": 3, "<0xC3>": 4, "<0xA9>": 5, "<s>": 6}
    tokenizer = Tokenizer(models.BPE(words, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


def word_piece() -> PreTrainedTokenizerFast:
    words = {"[UNK]": 0, "a": 1, "##b": 2, ".": 3}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 1, 1, 4, 5, 1], ["a", " a", " a", "", "é", " a"]),
        ([2, 2, 1], ["a", "a", " a"]),
        ([3, 1, 3], ["", " a", " "]),
        ([6, 1, 2], ["<s>", " a", "a"]),
        ([1, 4], ["a", "<0xC3>"]),
        ([5, 2], ["<0xA9>", "a"]),
        ([4, 2, 5], ["<0xC3>", "a", "<0xA9>"]),
        ([4, 4, 5], ["<0xC3>", "", "é"]),
        ([], []),
    ],
)
def test_spaces_stay_and_bytes_make_characters_across_tokens(ids: list[int], expected: list[str]):
    assert token_texts(metaspace(), ids) == expected
    if "<0x" not in "".join(expected):
        assert "".join(expected) == metaspace().decode(ids)


def test_a_space_before_tokens_inside_a_text_stays():
    for ids, expected in (
        ([1], [" a"]),
        ([2], ["a"]),
        ([1, 2], [" a", "a"]),
        ([3, 1], [" ", " a"]),
        ([], []),
    ):
        assert token_texts(metaspace(), ids, inside=True) == expected


def test_pieces_of_words():
    assert token_texts(word_piece(), [1, 2, 1, 3]) == ["a", "b", " a", "."]  # as WordPiece decodes it


@given(text=TEXT)
def test_the_texts_of_a_byte_level_tokenizer_are_the_text(text: str):
    tokenizer = TOKENIZERS["byte-level"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)) == text


@given(text=TEXT)
def test_the_texts_of_a_tokenizer_with_byte_fallback_are_the_text(text: str):
    tokenizer = TOKENIZERS["one piece"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_a_byte_level_token_alone():
    tokenizer = TOKENIZERS["byte-level"]
    ids = tokenizer(" the é�", add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)) == " the é�"
    alone = [token_texts(tokenizer, [token])[0] for token in ids]
    assert alone[0] == " the" and "<0xC3>" in alone and not any("\ufffd" in text for text in alone)
    end = tokenizer.eos_token_id
    assert token_texts(tokenizer, [end]) == [tokenizer.eos_token]


def test_ids_beyond_the_vocabulary_are_their_numbers():
    """Of a model whose rows are padded to more than its tokenizer has."""
    tokenizer = word_tokenizer()
    assert token_texts(tokenizer, [5, 90, 91, 7], inside=True) == ["5", "<90>", "<91>", "7"]
    assert token_texts(tokenizer, [90]) == ["<90>"]

"""Packing documents into token sequences."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xtalk.data import tokenise
from xtalk.errors import XtalkError

WORDS = {"<bos>": 0, "<eos>": 1, **{str(i): i for i in range(2, 50)}}


def word_tokenizer(bos: bool = True, eos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of the words "2" to "49", whose ids are the same numbers."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="2"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"bos_token": "<bos>"} if bos else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **named, **({"eos_token": "<eos>"} if eos else {})
    )


TOKENIZER = word_tokenizer()


@given(
    docs=st.lists(st.lists(st.integers(2, 49), max_size=12), max_size=30),
    length=st.integers(1, 9),
)
def test_every_token_appears_once_in_order_with_its_document(docs: list[list[int]], length: int):
    ids = list(chain.from_iterable([0, *doc] for doc in docs))
    owners = list(chain.from_iterable([number] * (1 + len(doc)) for number, doc in enumerate(docs)))
    texts = [" ".join(map(str, doc)) for doc in docs]
    whole = len(ids) // length * length
    if whole == 0:
        with pytest.raises(XtalkError, match=f"has {len(ids)} tokens; one sequence needs {length}"):
            tokenise(texts, TOKENIZER, length)
        return
    packed = tokenise(texts, TOKENIZER, length)
    assert packed.tokens.shape == packed.documents.shape == (len(packed), packed.length)
    assert packed.length == length
    assert packed.tokens.dtype == packed.documents.dtype == np.int32
    assert packed.tokens.ravel().tolist() == ids[:whole]
    assert packed.documents.ravel().tolist() == owners[:whole]


def test_more_documents_than_are_encoded_at_once():
    docs = [str(2 + i % 40) for i in range(2500)]
    packed = tokenise(docs, TOKENIZER, 2)
    assert packed.tokens[:, 1].tolist() == [2 + i % 40 for i in range(2500)]
    assert packed.documents[:, 0].tolist() == list(range(2500))


@pytest.mark.parametrize(
    ("bos", "eos", "expected"), [(True, True, [0, 5]), (False, True, [1, 5]), (False, False, [5])]
)
def test_prefix_is_bos_then_eos_then_nothing(bos: bool, eos: bool, expected: list[int]):
    assert tokenise(["5"], word_tokenizer(bos, eos), len(expected)).tokens.tolist() == [expected]


def test_hash_tells_apart_tokens_documents_and_shape():
    def digest(docs: list[str], length: int) -> str:
        return tokenise(docs, word_tokenizer(False, False), length).text_hash

    same = digest(["2 3", "4 5"], 2)
    assert same == digest(["2 3", "4 5"], 2)
    assert len({same, digest(["2 3", "4 6"], 2), digest(["2", "3 4 5"], 2), digest(["2 3", "4 5"], 4)}) == 4


def test_length_below_one_is_refused():
    with pytest.raises(XtalkError, match="sequence length 0"):
        tokenise(["5"], TOKENIZER, 0)

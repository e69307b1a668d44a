"""Which token documents begin with."""

import pytest
from data.test_tokens import word_tokenizer

from xtalk.data import start_token


@pytest.mark.parametrize(
    ("bos", "eos", "expected"), [(True, True, 0), (False, True, 1), (False, False, None)]
)
def test_the_start_token_is_bos_then_eos_then_none(bos: bool, eos: bool, expected: int | None):
    assert start_token(word_tokenizer(bos, eos)) == expected

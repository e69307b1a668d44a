"""The token that every document begins with."""

from typing import cast

from transformers import PreTrainedTokenizerBase


def start_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of a tokenizer's beginning-of-text token, or else of its end-of-text token, or else None."""
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next((cast(int, token) for token in ids if token is not None), None)

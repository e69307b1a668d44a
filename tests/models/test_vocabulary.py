"""Tokenizers with fewer or more tokens than the model has rows, and those without special tokens."""

import pytest
import torch
from models.folders import edit_config, rewrite
from reference.tiny_models import VOCABULARY, save_tiny
from transformers import PreTrainedTokenizerFast

from xtalk.api.inputs import sequences_of
from xtalk.errors import XtalkError
from xtalk.models.language_model import load_model

PADDED = 64


def test_a_model_whose_rows_are_padded(folder):
    rewrite(
        folder,
        lambda tensors: {
            name: torch.cat([tensor, torch.randn(PADDED - VOCABULARY, 24)]) if "wte" in name else tensor
            for name, tensor in tensors.items()
        },
    )
    edit_config(folder, vocab_size=PADDED)
    model = load_model(folder)
    assert (model.vocabulary, len(model.tokenizer)) == (PADDED, VOCABULARY)
    sequences = sequences_of(model, ["w1 w2 w3", "w4"], tokens=6, length=6)
    assert sequences.tokens.tolist() == [[0, 1, 2, 3, 0, 4]]
    assert model.logits(torch.from_numpy(sequences.tokens)).shape == (1, 6, PADDED)


def test_a_tokenizer_without_a_start_token(tmp_path):
    save_tiny(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    plain = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "old-tokenizer.json"))
    plain.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.tokenizer.bos_token_id is None and model.tokenizer.eos_token_id is None
    assert sequences_of(model, ["w1 w2", "w3"], tokens=3, length=3).tokens.tolist() == [[1, 2, 3]]


def test_tokens_that_the_model_has_no_row_for(folder):
    """Added tokens that nobody trained: they are refused when they are met, not before."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(folder)
    model = load_model(folder)
    assert len(model.tokenizer) == VOCABULARY + 1
    fine, new = (sequences_of(model, [text], tokens=2, length=2) for text in ("w1", "new"))
    model.logits(torch.from_numpy(fine.tokens))
    with pytest.raises(XtalkError, match="the model's vocabulary is 0 to 52"):
        model.logits(torch.from_numpy(new.tokens))

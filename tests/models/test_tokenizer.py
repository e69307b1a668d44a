"""The tokenizer of a model reads text as its tokenizer.json says."""

import json
import logging

import pytest
from models.folders import refusal
from reference.tiny_models import save_tiny
from tokenizers import Tokenizer, decoders, models, normalizers

from xtalk.models import tokenizer as reading
from xtalk.models.language_model import load_model

WORDS = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6}


def with_tokenizer(folder, name):
    stored = Tokenizer(models.BPE(WORDS, [("▁", "a")], unk_token="<unk>"))
    stored.normalizer, stored.decoder = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    stored.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name} | tokens))
    return stored


@pytest.mark.parametrize("name", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_the_ids_are_those_of_the_file_whatever_class_transformers_takes(folder, name, caplog):
    stored = with_tokenizer(folder, name)
    with caplog.at_level(logging.WARNING, "xtalk"):
        tokenizer = load_model(folder).tokenizer
    for text in ("a a b", "  b a"):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == stored.encode(text).ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert ("the file is used" in caplog.text) == (name == "LlamaTokenizer")


def test_a_tokenizer_that_stays_another_is_refused_with_both_readings(folder, monkeypatch):
    with_tokenizer(folder, "LlamaTokenizer")
    other = reading.AutoTokenizer.from_pretrained(folder)
    monkeypatch.setattr(reading.PreTrainedTokenizerFast, "from_pretrained", lambda *_, **__: other)
    message = refusal(folder)
    assert "['▁a', '▁a', '▁', 'b']" in message and "['a', '▁a', '▁', 'b'] by its tokenizer.json" in message


def test_truncation_that_the_file_asks_for_does_not_count(tmp_path):
    save_tiny(tmp_path)
    stored = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    stored.enable_truncation(2)
    stored.enable_padding(length=9)
    stored.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_model(tmp_path).tokenizer
    assert tokenizer("w1 w2 w3 w4", add_special_tokens=False)["input_ids"] == [1, 2, 3, 4]

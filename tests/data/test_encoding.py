"""Encoding in chunks and pieces gives the ids of encoding at once."""

import random
from typing import Any

import pytest
from data.test_tokens import word_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from xtalk.data import encoding, read_documents
from xtalk.data.encoding import encode_documents
from xtalk.models.language_model import load_model

LETTERS = "ab cd é 🙂 x.\n"


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Such as Llama 2's: the text as one piece, with a space before it, and bytes for unknown characters."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, max_token_length=8)
    made.train_from_iterator(read_documents(max_characters=20_000), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made)


TOKENIZERS: dict[str, Any] = {
    "byte-level": load_model("embedded").tokenizer,
    "one piece": metaspace_tokenizer(),
    "words": word_tokenizer(),
}


def documents() -> list[str]:
    rng = random.Random(0)
    story = "\n\n".join(read_documents(max_characters=20_000))
    odd = "".join(rng.choice(LETTERS) for _ in range(9000))
    numbers = " ".join(str(rng.randrange(2, 50)) for _ in range(4000))
    return ["", "a", story, story[:700], odd, numbers, "a" * 5000, " " * 3000, "🙂" * 2000, *"xyz" * 50]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("characters", [500, 2000, 1 << 20])
def test_ids_are_those_of_encoding_each_document_at_once(
    name: str, characters: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encoding, "CHARACTERS", characters)
    monkeypatch.setattr(encoding, "_SHARED", 200)
    tokenizer, docs = TOKENIZERS[name], documents()
    expected = tokenizer(docs, add_special_tokens=False, verbose=False)["input_ids"]
    assert [ids.tolist() for ids in encode_documents(docs, tokenizer)] == expected


def test_no_more_than_so_many_characters_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "CHARACTERS", 1000)
    monkeypatch.setattr(encoding, "_SHARED", 200)
    tokenizer, sizes = TOKENIZERS["byte-level"], list[int]()
    encode = type(tokenizer).__call__

    def counted(self: Any, texts: str | list[str], **options: Any) -> Any:
        sizes.append(len(texts) if isinstance(texts, str) else sum(map(len, texts)))
        return encode(self, texts, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    story = " ".join(read_documents(max_characters=20_000))
    for docs in ([story], [story[:900]] * 9, list(story)):
        sizes.clear()
        assert sum(map(len, encode_documents(docs, tokenizer))) > 0
        assert max(sizes) <= 1000 and len(sizes) >= 9

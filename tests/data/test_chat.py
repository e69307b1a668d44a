"""Conversations in a model's chat template: as text, as tokens, and what is refused."""

import json
from pathlib import Path

import pytest
from data.test_tokens import word_tokenizer
from reference.tiny_models import tiny_model

import xtalk
from xtalk.api.inputs import sequences_of
from xtalk.data import read_documents, renderer, tokenise
from xtalk.errors import XtalkError

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no role ' + m.role) }}{% endif %}"
    "{{ ' 7 ' if m.role == 'user' else ' 8 ' }}{{ m.content }} {{ eos_token }}{% endfor %}"
)
TALK = [{"role": "user", "content": "2 3"}, {"role": "assistant", "content": "4"}]


@pytest.fixture
def tokenizer():
    made = word_tokenizer()
    made.chat_template = TEMPLATE
    return made


def write(path: Path, *values: object, column: str = "messages") -> xtalk.TextSource:
    path.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
    return xtalk.TextSource(path, chat=True)


def test_conversations_are_documents_in_the_template(tokenizer, tmp_path: Path):
    texts = read_documents(write(tmp_path / "a.jsonl", TALK, "5 6"), render=renderer(tokenizer, "m"))
    assert texts == ["<bos> 7 2 3 <eos> 8 4 <eos>", "<bos> 7 5 6 <eos>"]


def test_their_special_tokens_are_tokens_and_the_start_token_comes_once(tokenizer, tmp_path: Path):
    texts = read_documents(write(tmp_path / "a.jsonl", TALK, "5 6"), render=renderer(tokenizer, "m"))
    packed = tokenise([*texts, "9"], tokenizer, 15)
    assert packed.tokens.tolist() == [[0, 7, 2, 3, 1, 8, 4, 1, 0, 7, 5, 6, 1, 0, 9]]
    assert packed.documents.tolist() == [[0] * 8 + [1] * 5 + [2] * 2]


def test_special_tokens_inside_a_text_are_not_lost():
    tokenizer = word_tokenizer()
    assert tokenise(["5 <eos> 6<bos>7"], tokenizer, 6).tokens.tolist() == [[0, 5, 1, 6, 0, 7]]


def test_the_library_takes_conversations(tokenizer, tmp_path: Path):
    model = tiny_model("gpt2")
    model.tokenizer = tokenizer
    source = write(tmp_path / "a.jsonl", TALK, "5 6")
    made = sequences_of(model, source, tokens=13, length=13)
    assert made.tokens.tolist() == [[0, 7, 2, 3, 1, 8, 4, 1, 0, 7, 5, 6, 1]]
    tokenizer.chat_template = None
    with pytest.raises(XtalkError, match=r"the tokenizer of gpt2 has no chat template; .*leave out --chat"):
        sequences_of(model, source, tokens=13, length=13)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "line 1 is no conversation"),
        ([], "without messages"),
        ([{"role": "user"}], "line 1 is no conversation"),
        (["hello"], "line 1 is no conversation"),
        ([{"role": "tool", "content": "x"}], r"refuses a conversation \(tool\): no role tool"),
    ],
)
def test_what_is_no_conversation_is_one_line(tokenizer, tmp_path: Path, value: object, message: str):
    source = write(tmp_path / "a.jsonl", value)
    with pytest.raises(XtalkError, match=message) as caught:
        read_documents(source, render=renderer(tokenizer, "m"))
    assert "\n" not in str(caught.value)


def test_without_a_template_conversations_are_refused(tmp_path: Path):
    with pytest.raises(XtalkError, match="need the chat template"):
        read_documents(write(tmp_path / "a.jsonl", TALK))


def test_another_column(tokenizer, tmp_path: Path):
    write(tmp_path / "a.jsonl", TALK, column="talk")
    source = xtalk.TextSource(tmp_path / "a.jsonl", column="talk", chat=True)
    assert read_documents(source, render=renderer(tokenizer, "m")) == ["<bos> 7 2 3 <eos> 8 4 <eos>"]
    with pytest.raises(XtalkError, match='no "messages" string; it has talk'):
        read_documents(xtalk.TextSource(tmp_path / "a.jsonl", chat=True), render=renderer(tokenizer, "m"))

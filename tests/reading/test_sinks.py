"""Sinks are found where they are, and nowhere else."""

import numpy as np
import torch
from evaluation.held_out import held_out
from evaluation.test_counted import with_sink
from reference.tiny_models import tiny_model

from xtalk.data import Counted, read_documents, tokenise
from xtalk.models.language_model import load_model
from xtalk.reading.sinks import find_sinks

TEXT = held_out(20, 12)


def test_a_first_position_that_is_blown_up_is_found_and_told():
    model = with_sink()
    sinks = find_sinks(model, TEXT, model.hookpoints())
    assert sinks.counted == Counted(1) and sinks.position_ratio > 20
    sentence = sinks.sentence(model)
    assert sentence is not None and "\n" not in sentence
    assert "the first position of every sequence, with norms " in sentence
    assert f"{sinks.position_ratio:.0f} times the median at blocks.0.resid_pre" in sentence
    assert find_sinks(model, TEXT, [model.hookpoint("blocks.0.ln1")]).counted == Counted(1)


def test_two_first_positions_and_no_later_one():
    model = with_sink()
    model.hf.transformer.wpe.weight.data[1] *= 100
    model.hf.transformer.wpe.weight.data[3] *= 100
    sinks = find_sinks(model, TEXT, model.hookpoints())
    assert sinks.positions == 2 and "the first 2 positions" in str(sinks.sentence(model))


def test_a_token_that_is_blown_up_is_found():
    model = tiny_model("gpt_neo")
    token = int(np.bincount(TEXT.tokens.ravel()).argmax())
    with torch.no_grad():
        model.hf.transformer.wte.weight.data[token] *= 500
    sinks = find_sinks(model, TEXT, model.hookpoints())
    assert sinks.counted == Counted(0, frozenset({token}))
    assert f"the tokens {token}, with norms" in str(sinks.sentence(model))


def test_ordinary_models_have_none():
    model = tiny_model("gpt_neo")
    sinks = find_sinks(model, TEXT, model.hookpoints())
    assert sinks.counted == Counted() and sinks.sentence(model) is None
    embedded = load_model("embedded")
    assert embedded.tokenizer is not None
    text = tokenise(read_documents(None, 40_000), embedded.tokenizer, 128)
    assert find_sinks(embedded, text, embedded.hookpoints()).sentence(embedded) is None

"""Streams and stores over a real architecture, tiny and random."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from xtalk.activations import ActivationBatches, ActivationStore, ActivationStream
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel

SEQUENCES = token_sequences(
    np.random.default_rng(0).integers(0, 40, (12, 8), dtype=np.int32), np.zeros((12, 8), dtype=np.int32)
)


def tiny_model(dtype: torch.dtype = torch.float32) -> LanguageModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    return LanguageModel(GPT2LMHeadModel(config).to(dtype), None, "tiny", "hash of tiny")


def test_activations_are_the_models_own():
    model = tiny_model()
    hookpoints = [Hookpoint(1, "resid_pre"), Hookpoint(0, "resid_pre")]
    hidden = model.hf(torch.from_numpy(SEQUENCES.tokens).long(), output_hidden_states=True).hidden_states
    assert isinstance(model, CapturingModel)
    for batch in ActivationStream(model, SEQUENCES, hookpoints, batch_tokens=10, seed=0, buffer_sequences=5):
        for slot, layer in enumerate((1, 0)):
            expected = hidden[layer][batch.sequences, batch.positions]
            torch.testing.assert_close(batch.activations[:, slot], expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_resumes_bit_for_bit_and_a_store_gives_the_same_batches(tmp_path: Path):
    def stream() -> ActivationStream:
        model = tiny_model(torch.bfloat16)
        return ActivationStream(
            model, SEQUENCES, model.hookpoints(), batch_tokens=10, seed=0, buffer_sequences=5
        )

    whole = list(stream())
    first, second = stream(), stream()
    for _ in range(3):
        next(first)
    second.load_state_dict(first.state_dict())
    stored = ActivationBatches(
        ActivationStore.write(tmp_path, stream()), batch_tokens=10, seed=0, buffer_sequences=5
    )
    stored.load_state_dict(first.state_dict())
    for expected, got, read in zip(whole[3:], second, stored, strict=True):
        assert torch.equal(got.activations, expected.activations)
        # sequences share other micro-batches in the store, so the last bits may differ
        torch.testing.assert_close(read.activations, expected.activations, rtol=2**-6, atol=2**-6)


def test_sequences_beyond_the_context_are_refused():
    model = tiny_model()
    tokens = np.zeros((2, 9), dtype=np.int32)
    stream = ActivationStream(
        model, token_sequences(tokens, tokens), model.hookpoints(), batch_tokens=4, seed=0
    )
    with pytest.raises(XtalkError, match="context is 8"):
        next(stream)

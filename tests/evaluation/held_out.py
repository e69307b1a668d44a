"""Text and crosscoders for tests of evaluation, made so that the right answers are known."""

import numpy as np
import torch
from reference.tiny_models import VOCABULARY, tiny_model, tiny_tokenizer

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.models.language_model import LanguageModel


def model_with_tokenizer(kind: str = "gpt_neo") -> LanguageModel:
    model = tiny_model(kind)
    model.tokenizer = tiny_tokenizer()
    return model


def held_out(n: int = 9, length: int = 8, seed: int = 0) -> TokenSequences:
    """Documents of unlike lengths, numbered with gaps, that end and begin in the middle of sequences."""
    rng = np.random.default_rng(seed)
    tokens_nS = rng.integers(1, VOCABULARY, (n, length)).astype(np.int32)
    lengths = rng.integers(2, 9, n * length)
    numbers = 5 + 3 * np.arange(n * length)
    documents = np.repeat(numbers, lengths)[: n * length].astype(np.int32)
    return token_sequences(tokens_nS, documents.reshape(n, length))


def make_crosscoder(model: LanguageModel, d_sae: int, architecture: str = "relu", k: int = 4) -> Crosscoder:
    names = tuple(map(str, model.hookpoints()))
    config = CrosscoderConfig(
        d_in=model.d_model, d_sae=d_sae, k=k, hook_names=names, architecture=architecture
    )
    return Crosscoder(config)


@torch.no_grad()
def exact_crosscoder(model: LanguageModel) -> Crosscoder:
    """Two latents for every coordinate of every hookpoint, its positive and its negative part."""
    P, D = len(model.hookpoints()), model.d_model
    crosscoder = make_crosscoder(model, 2 * P * D)
    eye = torch.eye(P * D)
    crosscoder.W_enc.copy_(torch.cat([eye, -eye], dim=1).view(P, D, -1))
    crosscoder.W_dec.copy_(torch.cat([eye, -eye]).view(-1, P, D))
    return crosscoder


@torch.no_grad()
def random_crosscoder(model: LanguageModel, d_sae: int = 30, architecture: str = "batchtopk") -> Crosscoder:
    """Random everything; a few latents are active at each token, of some 6 on average."""
    crosscoder = make_crosscoder(model, d_sae, architecture)
    generator = torch.Generator().manual_seed(7)
    for parameter in (crosscoder.W_enc, crosscoder.W_dec, crosscoder.b_enc, crosscoder.b_dec):
        parameter.normal_(0.0, 0.2, generator=generator)
    crosscoder.W_dec.mul_(2.0)
    crosscoder.threshold.fill_(4.0)
    return crosscoder


@torch.no_grad()
def silent_crosscoder(model: LanguageModel) -> Crosscoder:
    """No latent is ever active: it decodes its bias, whatever the token."""
    crosscoder = make_crosscoder(model, 6)
    crosscoder.b_enc.fill_(-1.0)
    crosscoder.b_dec.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(3))
    return crosscoder

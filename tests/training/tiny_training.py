"""Trainings small enough for tests: a source of activations with sparse features, and MLPs over it."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch

from xtalk.activations import ActivationBatches, Scaling, SourceIdentity, measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.data.tokens import token_sequences
from xtalk.models.activation_functions import GELU_TANH
from xtalk.models.hookpoints import paper_hookpoints
from xtalk.models.mlp import MlpWeights
from xtalk.training.config import TrainingConfig

D, N, LENGTH = 12, 20, 32


class SparseSource:
    """Activations that are sums of a few of many random directions, at the paper's hookpoints."""

    def __init__(self, blocks: int = 2, sequences: int = 1200, features: int = 40) -> None:
        self.names = tuple(map(str, paper_hookpoints(blocks)))
        self.identity = SourceIdentity("weights", "text", self.names)
        tokens = np.arange(sequences * LENGTH, dtype=np.int32).reshape(sequences, LENGTH)
        self.sequences = token_sequences(tokens, np.zeros_like(tokens))
        self.d_model = D
        self._activations = _activations(len(self.names), sequences, features)

    def read(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        yield self._activations[torch.from_numpy(rows)]


@cache
def _activations(hookpoints: int, sequences: int, features: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    directions = torch.randn(features, hookpoints, D, generator=generator)
    offset = torch.randn(hookpoints, D, generator=generator)
    codes = torch.rand(sequences, LENGTH, features, generator=generator)
    active = torch.rand(codes.shape, generator=generator) < 3 / features
    x = torch.einsum("nsf,fpd->nspd", codes * active, directions) + offset
    return x * torch.linspace(0.5, 3.0, hookpoints)[:, None]


class RandomMlps:
    """A model of which only the MLPs exist."""

    def mlp_weights(self, block: int) -> MlpWeights:
        generator = torch.Generator().manual_seed(block)
        W_in, b_in, W_out, b_out = (
            torch.randn(shape, generator=generator) for shape in ((D, N), (N,), (N, D), (D,))
        )
        return MlpWeights(W_in / D**0.5, b_in, W_out / N**0.5, b_out, GELU_TANH)


def batches(source: SparseSource | None = None, batch_tokens: int = 64) -> ActivationBatches:
    return ActivationBatches(source or SparseSource(), batch_tokens, seed=0, buffer_sequences=16)


def scaling_of(source: SparseSource | None = None) -> Scaling:
    return measure_scaling(batches(source), 2048)


def crosscoder_config(source: SparseSource | None = None, **changes) -> CrosscoderConfig:
    names = (source or SparseSource()).names
    return CrosscoderConfig(**{"d_in": D, "d_sae": 32, "k": 4, "hook_names": names} | changes)


def training_config(**changes) -> TrainingConfig:
    small = {"steps": 12, "batch_tokens": 64, "warmup_steps": 4, "bfloat16": False, "dead_after_tokens": 256}
    return TrainingConfig(**small | changes)

"""Pair terms outside MLPs by loops over tokens, heads and features: attention's, and the norms'.

features: of every token of a sequence, its active (latent, activation).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from xtalk.models.attention import AttentionWeights
from xtalk.models.norms import NormWeights

Features = list[tuple[int, float]]


def attention_terms(
    attention: AttentionWeights,
    d_LD: Tensor,
    d_after_LD: Tensor,
    n_SD: Tensor,
    features: list[Features],
    site: str,
) -> Iterator[tuple[int, int, int, int, float]]:
    """Query, key, the query's latent, the key's, and what the pair adds; every key that the query sees.

    d_LD: directions at the attention's input, n_SD; d_after_LD: in the residual stream after it.
    """
    pattern = attention.pattern(n_SD)

    def turned(W_HDh: Tensor, place: int, latent: int, f: float) -> Tensor:
        return f * attention.rotated((d_LD[latent] @ W_HDh)[None], torch.tensor([place]))[0]

    queries, keys = (
        [[turned(W, t, i, f) for i, f in active] for t, active in enumerate(features)]
        for W in (attention.W_Q, attention.W_K)
    )
    for t in range(len(features)):
        for s in range(t + 1):
            for a, (i, f_i) in enumerate(features[t]):
                for b, (j, f_j) in enumerate(features[s]):
                    term = 0.0
                    for h in range(len(pattern)):
                        if site == "qk":
                            score = attention.scale * (queries[t][a][h] * keys[s][b][h]).sum()
                            term += float(pattern[h, t, s] * score.abs())
                        else:
                            written = d_LD[j] @ attention.W_V[h] @ attention.W_O[h]
                            term += float(pattern[h, t, s] * f_i * f_j * (d_after_LD[i] @ written))
                    yield t, s, i, j, abs(term)


def scale_changes(
    norm: NormWeights, d_LD: Tensor, x_D: Tensor, features: Features
) -> Iterator[tuple[int, int, float]]:
    """Every ordered pair of different features of a token, and half the norm of its mixed difference."""
    for i, f_i in features:
        for j, f_j in features:
            if i != j:
                a, b = f_i * d_LD[i], f_j * d_LD[j]
                yield i, j, float((norm(x_D) - norm(x_D - a) - norm(x_D - b) + norm(x_D - a - b)).norm()) / 2

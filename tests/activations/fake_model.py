"""A model whose activations are a formula, so that every expected value can be written down."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.models.hookpoints import Hookpoint, paper_hookpoints

HOOKPOINTS = paper_hookpoints(1)


class FakeModel:
    """Channel 0 holds the token, 1 the position, 2 the hookpoint's number; the rest depends on them."""

    d_model = 6
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype = torch.float32, weights_hash: str = "fake") -> None:
        self.dtype = dtype
        self.weights_hash = weights_hash
        self.captures = 0

    def capture(self, tokens_BS: Tensor, hookpoints: Sequence[Hookpoint]) -> Tensor:
        self.captures += 1
        shape = (*tokens_BS.shape, len(hookpoints))
        token = tokens_BS[:, :, None].expand(shape).float()
        position = torch.arange(shape[1])[None, :, None].expand(shape).float()
        slot = torch.arange(shape[2]).expand(shape).float()
        noise = [torch.sin(token * a + position * b + slot + 1) for a, b in ((3, 1), (7, 2), (5, 3))]
        return torch.stack([token, position, slot, *noise], dim=-1).to(self.dtype)


def numbered_sequences(n: int, length: int) -> TokenSequences:
    """Sequences in which every token is another number, from 0 up."""
    tokens_nS = np.arange(n * length, dtype=np.int32).reshape(n, length)
    return token_sequences(tokens_nS, tokens_nS // (2 * length))

"""A penalty that returns a detached number trains nothing: each must move the gradient, at every depth."""

import pytest
import torch

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.interactions.penalties import PENALTIES
from xtalk.models.activation_functions import GELU
from xtalk.selftest.cases import random_mlp
from xtalk.training.objective import Objective, PenalisedMlp

BLOCKS, B, L, D, N = 6, 16, 12, 4, 7  # deeper than the paper's models


def decoder_gradient(penalties, gated, bfloat16=False):
    """(L, P, D), the crosscoder's hookpoints being the blocks' ln2."""
    generator = torch.Generator().manual_seed(0)
    names = tuple(f"blocks.{block}.ln2" for block in range(BLOCKS))
    crosscoder = Crosscoder(CrosscoderConfig(d_in=D, d_sae=L, k=3, hook_names=names, architecture="topk"))
    crosscoder.initialise(torch.zeros(BLOCKS, D), torch.randn(L, BLOCKS, D, generator=generator))
    mlps = [
        PenalisedMlp(random_mlp(GELU, gated, generator, D, N, torch.float32), block, 1.5, 2.0)
        for block in range(BLOCKS)
    ]
    objective = Objective(mlps, penalties, aux=0.0, sparsity=0.0, bfloat16=bfloat16)
    x_BPD = torch.randn(B, BLOCKS, D, generator=generator)
    loss, _, _ = objective(crosscoder, x_BPD, torch.empty(0, dtype=torch.int64), penalty_factor=0.5)
    loss.backward()
    return crosscoder.W_dec.grad


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_moving_a_coefficient_off_zero_moves_the_gradient_at_every_depth(name, gated, bfloat16):
    without = decoder_gradient({}, gated, bfloat16)
    moved = decoder_gradient({name: 1.0}, gated, bfloat16) - without
    assert bool(moved.abs().amax(dim=(0, 2)).gt(1e-4).all())
    twice = decoder_gradient({name: 2.0}, gated, bfloat16) - without
    rounding = (0.03 if bfloat16 else 1e-4) * float(moved.abs().max())
    torch.testing.assert_close(twice, 2 * moved, rtol=0, atol=rounding)

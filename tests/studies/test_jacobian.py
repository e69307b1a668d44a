"""Jacobian SAEs: the active block of the Jacobian, against torch.autograd's."""

import numpy as np
import pytest
import torch
from reference.tiny_models import D_MODEL, tiny_model, tiny_tokens

from studies.results.jacobian import jacobian, jacobian_penalty, slopes, train_pair
from studies.results.rivals import jacobian_of
from xtalk.activations import Harvest
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted
from xtalk.data.tokens import token_sequences
from xtalk.models.activation_functions import GELU_TANH, RELU, SILU
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights
from xtalk.selftest.cases import random_mlp
from xtalk.training.config import TrainingConfig

D, N, B = 6, 9, 4
SCALE = 0.7, 1.9


def random_pair(generator) -> list[Crosscoder]:
    """Of different sizes, in scaled space."""
    made: list[Crosscoder] = []
    for L, k in ((11, 3), (8, 2)):
        config = CrosscoderConfig(d_in=D, d_sae=L, k=k, hook_names=("blocks.0.ln2",), architecture="topk")
        crosscoder = Crosscoder(config).double()
        for parameter in crosscoder.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).double()
        made.append(crosscoder)
    return made


@pytest.mark.parametrize(("phi", "gated"), [(GELU_TANH, False), (RELU, False), (SILU, True)])
def test_it_is_the_jacobian_of_the_output_s_latents_by_the_input_s(phi, gated: bool):
    generator = torch.Generator().manual_seed(1)
    mlp = random_mlp(phi, gated, generator, D, N, torch.float64)
    of_input, of_output = pair = random_pair(generator)
    n_BD = torch.randn(B, D, generator=generator).double()
    codes = [of_input.encode_sparse(SCALE[0] * n_BD), of_output.encode_sparse(SCALE[1] * mlp(n_BD))]
    directions_LD, encoder_DM = of_input.W_dec[:, 0] / SCALE[0], of_output.W_enc[0] * SCALE[1]
    J_BKJ = jacobian(mlp, slopes(mlp, n_BD), directions_LD, encoder_DM, *codes)
    total = 0.0
    for b in range(B):
        f_L = codes[0].dense()[b].detach()

        def latents(moved_L, b=b, f_L=f_L):
            """The output's latents, before TopK, when the input's are moved from what they are."""
            y_D = mlp(n_BD[b] + (moved_L - f_L) @ directions_LD)
            return (SCALE[1] * y_D) @ of_output.W_enc[0] + of_output.b_enc

        whole_ML = torch.autograd.functional.jacobian(latents, f_L)
        for k, i in enumerate(codes[0].latents[b].tolist()):
            for j, m in enumerate(codes[1].latents[b].tolist()):
                active = codes[0].values[b, k] > 0 and codes[1].values[b, j] > 0
                expected = whole_ML[m, i] if active else torch.zeros(()).double()
                torch.testing.assert_close(J_BKJ[b, k, j], expected)
                size = of_output.W_dec[m, 0].norm() / of_input.W_dec[i, 0].norm()
                total += float((expected.abs() * size).detach()) / (3 * 2) / B
    found = jacobian_penalty(mlp, n_BD, pair, codes, SCALE)
    assert found.item() == pytest.approx(total)


def test_it_cannot_be_lowered_by_smaller_codes():
    generator = torch.Generator().manual_seed(2)
    mlp, pair = random_mlp(RELU, False, generator, D, N, torch.float64), random_pair(generator)
    n_BD = torch.randn(B, D, generator=generator).double()

    def penalty() -> float:
        codes = [pair[0].encode_sparse(n_BD), pair[1].encode_sparse(mlp(n_BD))]
        return jacobian_penalty(mlp, n_BD, pair, codes, (1.0, 1.0)).item()

    before = penalty()
    for crosscoder in pair:
        crosscoder.W_dec.data *= 5
        crosscoder.W_enc.data /= 5
        crosscoder.b_enc.data /= 5
    assert penalty() == pytest.approx(before)


def test_training_with_it_lowers_it():
    model = tiny_model("gpt_neo")
    tokens = tiny_tokens(400, 7, seed=5).numpy().astype("int32")
    inputs = Harvest(model, token_sequences(tokens, np.zeros_like(tokens)), [Hookpoint(1, "ln2")])
    training = TrainingConfig(steps=60, batch_tokens=64, lr=6e-3, warmup_steps=5, bfloat16=False)
    mlp = model.mlp_weights(1)
    few = torch.from_numpy(tokens[:30]).long()
    n_BD = model.capture(few, [Hookpoint(1, "ln2")])[:, 1:].reshape(-1, D_MODEL)

    def trained(weight: float) -> float:
        pair = train_pair(inputs, mlp, training, d_sae=30, k=4, weight=weight, counted=Counted(1))
        codes = [pair[0].encode_sparse(n_BD), pair[1].encode_sparse(mlp(n_BD))]
        assert [one.config.hook_names for one in pair] == [("blocks.1.ln2",), ("blocks.1.mlp_out",)]
        return jacobian_penalty(mlp, n_BD, pair, codes, (1.0, 1.0)).item()

    assert trained(30.0) < 0.7 * trained(0.0)


def test_entries_that_count():
    """Of a linear MLP, entries are products of its weights, whatever the norms of directions."""
    W = torch.tensor([[4.0, 1.0], [0.0, 0.5]])
    mlp = MlpWeights(W, torch.zeros(2), torch.eye(2), torch.zeros(2), RELU)
    own = {
        "W_enc": torch.eye(2) / 3,
        "W_dec": 3 * torch.eye(2),
        "b_enc": torch.zeros(2),
        "b_dec": torch.zeros(2),
    }
    of_input, of_output = (
        Crosscoder.from_tensors(**own, hook_names="blocks.0.ln2", architecture="relu") for _ in range(2)
    )
    n_BD = torch.tensor([[1.0, 0.0], [1.0, 2.0]])  # tokens with 2 and 4 active entries
    assert jacobian_of(mlp, of_input, of_output, n_BD) == {
        "jacobian_entries": 3.0,
        "jacobian_above": (2 + 3) / 2,
        "jacobian_holding": (2 + 2) / 2,  # 4 of 5; 5 of 5.5
    }

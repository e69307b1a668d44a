"""Training from active rows alone has the loss, the codes and the gradients of dense training."""

import pytest
import torch
from training.tiny_training import training_config

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.nonlinearities import NONLINEARITIES
from xtalk.products import active_rows_pay
from xtalk.selftest.dense_training import dense_loss
from xtalk.training.adam import Adam
from xtalk.training.objective import Objective
from xtalk.training.train import TrainingState, training_step

B, D, L, K = 41, 13, 97, 5  # all sizes differ, so that no two axes can be confused
DEAD = torch.arange(3, L, 7)


def problem(architecture: str, hookpoints: int, latents: int = L) -> tuple[Crosscoder, torch.Tensor]:
    names = tuple(f"blocks.{p}.ln2" for p in range(hookpoints))
    config = CrosscoderConfig(d_in=D, d_sae=latents, k=K, hook_names=names, architecture=architecture)
    crosscoder, generator = Crosscoder(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in crosscoder.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / D**0.5)
            if name == "threshold":
                parameter.copy_(0.7 + torch.rand(latents, generator=generator))
        crosscoder.b_enc[DEAD[latents > DEAD]] -= 9
    crosscoder.lay_out_for_training()
    return crosscoder, torch.randn(B, hookpoints, D, generator=generator)


def gradients(crosscoder: Crosscoder, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    crosscoder.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in crosscoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("hookpoints", [1, 3])
@pytest.mark.parametrize("latents", [L, 3 * K])  # where active rows pay, and where they do not
@pytest.mark.parametrize("architecture", NONLINEARITIES)
def test_loss_codes_and_gradients_are_the_dense_ones(architecture: str, latents: int, hookpoints: int):
    assert active_rows_pay(K, latents, torch.device("cpu")) == (latents == L)
    crosscoder, x_BPD = problem(architecture, hookpoints, latents)
    dead_L = DEAD[latents > DEAD]
    sparsity = 0.7 if crosscoder.nonlinearity.needs_sparsity_loss else 0.0
    loss, codes, _ = Objective([], {}, 0.3, sparsity, False)(crosscoder, x_BPD, dead_L, 1.0)
    expected, f_BL = dense_loss(crosscoder, x_BPD, dead_L, 0.3, sparsity)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(codes.dense(), f_BL)
    found, wanted = gradients(crosscoder, loss), gradients(crosscoder, expected)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert gradient.any(), name
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_bfloat16_chooses_the_same_latents_and_rounds_no_value(architecture: str):
    crosscoder, x_BPD = problem(architecture, 3)
    x_BPD = torch.cat([x_BPD, 100 * x_BPD])
    results = [
        Objective([], {}, 0.0, 0.0, bfloat16)(crosscoder, x_BPD, DEAD[:0], 1.0) for bfloat16 in (False, True)
    ]
    (loss, codes, _), (rough_loss, rough_codes, _) = results
    assert torch.equal(codes.dense() > 0, rough_codes.dense() > 0)
    torch.testing.assert_close(codes.dense(), rough_codes.dense())
    torch.testing.assert_close(loss, rough_loss)


def test_the_layout_changes_no_result_and_is_kept_by_the_gradient():
    crosscoder, x_BPD = problem("batchtopk", 3)
    rows_LX = crosscoder.encoder_rows()
    assert rows_LX.data_ptr() == crosscoder.W_enc.data_ptr() and rows_LX.is_contiguous()
    expected = gradients(crosscoder, Objective([], {}, 0.0, 0.0, False)(crosscoder, x_BPD, DEAD[:0], 1.0)[0])
    assert crosscoder.W_enc.grad.stride() == crosscoder.W_enc.stride()
    crosscoder.W_enc.data = crosscoder.W_enc.data.contiguous()
    found = gradients(crosscoder, Objective([], {}, 0.0, 0.0, False)(crosscoder, x_BPD, DEAD[:0], 1.0)[0])
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_a_step_is_that_of_dense_gradients_clipped_and_plain_adam(clip: float):
    crosscoder, x_BPD = problem("batchtopk", 3)
    plain, _ = problem("batchtopk", 3)
    training = training_config(lr=0.01, clip=clip, warmup_steps=0, decay=1e-6, dead_after_tokens=10_000)
    state = TrainingState(crosscoder, Adam(crosscoder.parameters()), torch.zeros(L, dtype=torch.int64))
    reference = torch.optim.Adam([p for p in plain.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        training_step(state, Objective([], {}, 0.0, 0.0, False), training, x_BPD)
        reference.zero_grad()
        dense_loss(plain, x_BPD, DEAD[:0], 0.0, 0.0)[0].backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
        reference.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(crosscoder.get_parameter(name), parameter, rtol=1e-3, atol=1e-5, msg=name)

"""The auxiliary loss reaches dead latents and revives them.

The published implementation took it from codes after TopK, where dead latents are always 0.
"""

import pytest
import torch
from training.tiny_training import SparseSource, batches, crosscoder_config, scaling_of, training_config

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.training.adam import Adam
from xtalk.training.auxiliary import auxiliary_loss
from xtalk.training.objective import Objective
from xtalk.training.train import TrainingState, dead_latents, training_step

DEAD = torch.arange(1, 32, 2)


def half_killed(k: int = 4) -> tuple[Crosscoder, list[torch.Tensor]]:
    """A crosscoder whose odd latents have pre-activations below all others', and batches in scaled space."""
    source = SparseSource(sequences=600)
    scaling = scaling_of(source)
    crosscoder = Crosscoder(crosscoder_config(source, k=k))
    directions = torch.randn(crosscoder.W_dec.shape, generator=torch.Generator().manual_seed(0))
    crosscoder.initialise(scaling.apply(scaling.mean_PD), directions)
    with torch.no_grad():
        crosscoder.W_enc[:, :, 1::2] *= 0.1
        crosscoder.b_enc[1::2] -= 4
    return crosscoder, [scaling.apply(batch.activations) for batch in batches(source)]


def test_it_is_the_error_rebuilt_from_the_best_dead_latents():
    crosscoder, [x_BPD, *_] = half_killed()
    pre_BL = crosscoder.pre_activations(x_BPD)
    error_BPD = torch.randn(x_BPD.shape, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for pre_L, error_PD in zip(pre_BL.detach(), error_BPD, strict=True):
        chosen = sorted(DEAD.tolist(), key=lambda i: -pre_L[i])[: 2 * crosscoder.config.k]
        codes = {i: float(pre_L[i]) if pre_L[i] > 0 else 0.1 * float(pre_L[i]) for i in chosen}
        rebuilt_PD = sum(code * crosscoder.W_dec[i].detach() for i, code in codes.items())
        total += float((error_PD - rebuilt_PD).square().sum())
    loss = auxiliary_loss(crosscoder, x_BPD, error_BPD, DEAD)
    assert loss.item() == pytest.approx(total / len(x_BPD), rel=1e-5)


def test_its_gradient_reaches_encoder_and_decoder_of_dead_latents_and_no_others():
    crosscoder, [x_BPD, *_] = half_killed(k=8)  # all 16 dead latents take part
    _, codes, parts = Objective([], {}, 1.0, 0.0, False)(crosscoder, x_BPD, DEAD, 1.0)
    assert not torch.isin(codes.latents[codes.values > 0], DEAD).any()  # they are dead indeed
    parts["aux"].backward()
    by_latent = {
        "W_enc": crosscoder.W_enc.grad.abs().sum((0, 1)),
        "W_dec": crosscoder.W_dec.grad.abs().sum((1, 2)),
        "b_enc": crosscoder.b_enc.grad.abs(),
    }
    for name, grad_L in by_latent.items():
        assert (grad_L[DEAD] > 0).all(), name
        assert (grad_L[::2] == 0).all(), name


def training_state(crosscoder: Crosscoder) -> TrainingState:
    last_fired_L = torch.zeros(crosscoder.config.d_sae, dtype=torch.int64)
    return TrainingState(crosscoder, Adam(crosscoder.parameters()), last_fired_L)


def test_latents_are_dead_once_silent_for_so_many_tokens():
    crosscoder, xs = half_killed()
    state, training = training_state(crosscoder), training_config(dead_after_tokens=150)
    objective = Objective([], {}, 0.0, 0.0, False)
    for x_BPD, expected in zip(xs, ([], [], DEAD.tolist()), strict=False):  # 64, 128, 192 tokens
        training_step(state, objective, training, x_BPD)
        assert dead_latents(state, training).tolist() == expected
    assert state.last_fired_L[::2].min() >= 64
    assert (state.last_fired_L[DEAD] == 0).all()


def dead_after_training(aux: float) -> int:
    crosscoder, xs = half_killed()
    state = training_state(crosscoder)
    training = training_config(steps=len(xs), lr=3e-3, aux=aux, dead_after_tokens=640)
    objective = Objective([], {}, aux, 0.0, False)
    for x_BPD in xs:
        training_step(state, objective, training, x_BPD)
    return len(dead_latents(state, training))


def test_it_revives_dead_latents():
    without, with_aux = dead_after_training(0.0), dead_after_training(1.0)
    assert without == 16
    assert with_aux <= 8

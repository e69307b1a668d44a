"""Training with T1's bound: it certifies what ordinary training does not, and keeps to what it is told."""

import torch
from proofs.small_finite import SIZES, rings, unchanged, untrained

from xtalk.proofs.t1.bound import table_margins
from xtalk.proofs.t1.network import FiniteNetwork, accuracy
from xtalk.proofs.t1.training import (
    FiniteTraining,
    activations,
    align_neurons,
    axes_crosscoder,
    train_finite,
)

INPUTS, LABELS = rings(400, 0)


def trained(bound: float, steps: int = 150, seed: int = 0):
    generator = torch.Generator().manual_seed(0)
    network = FiniteNetwork(SIZES, generator)
    crosscoder = axes_crosscoder(SIZES.d_model, SIZES.d_model, generator)
    align_neurons(network, crosscoder, generator)
    training = FiniteTraining(steps=steps, bound=bound, lr=1e-2, seed=seed)
    train_finite(network, crosscoder, INPUTS, LABELS, training, unchanged)
    return network, crosscoder


@torch.no_grad()
def certified(network, crosscoder) -> float:
    codes = crosscoder.encode_sparse(activations(network, INPUTS))
    features_LD, base_D = crosscoder.W_dec[:, 0], crosscoder.b_dec[0]
    margins_BC = table_margins(network, base_D, features_LD, codes, network.embedded(INPUTS), LABELS)
    return (margins_BC.scatter(1, LABELS[:, None], 1.0) > 0).all(1).double().mean().item()


def test_the_bound_in_the_loss_makes_certificates():
    aware, ordinary = trained(0.7), trained(0.0)
    assert accuracy(aware[0], INPUTS, LABELS, INPUTS) > 0.75
    assert certified(*aware) > certified(*ordinary) + 0.2
    assert accuracy(aware[0], INPUTS, LABELS, INPUTS, "linear") < 0.6  # rings are not linear
    assert accuracy(aware[0], INPUTS, LABELS, INPUTS, "ablated") < 0.6


def test_seeds_decide_everything():
    first, again, other = (trained(0.7, steps=8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0].w_in, again[0].w_in)
    assert torch.equal(first[1].W_dec, again[1].W_dec)
    assert not torch.equal(first[0].w_in, other[0].w_in)


def test_frozen_networks_stay_as_they_are():
    network, crosscoder = untrained()
    before, decoder = network.w_in.clone(), crosscoder.W_dec.clone()
    train_finite(network, crosscoder, INPUTS, LABELS, FiniteTraining(steps=20), unchanged, frozen=True)
    assert torch.equal(network.w_in, before)
    assert not torch.equal(crosscoder.W_dec, decoder)


def test_the_direct_path_is_what_is_left_by_ablation():
    network, _ = untrained()
    with torch.no_grad():
        network.w_out.zero_()
    accuracies = {accuracy(network, INPUTS, LABELS, INPUTS, mlp) for mlp in ("whole", "linear", "ablated")}
    assert len(accuracies) == 1

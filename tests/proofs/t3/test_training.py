import torch
from proofs.small_networks import CLASS_COLUMNS, MAX, random_network

from xtalk.proofs.t3.bound import cell_margins, compact_cells
from xtalk.proofs.t3.detail import Detail
from xtalk.proofs.t3.measuring import Measured, measure
from xtalk.proofs.t3.training import NetworkTraining, train_network


def trained(**changes):
    network = random_network(MAX, names_apart=1.0).float()
    settings = NetworkTraining(**{"steps": 100, "batch": 64, "lr": 0.02, "cells": 8} | changes)
    train_network(network, MAX, settings, CLASS_COLUMNS[MAX])
    return network


def test_the_bound_in_the_loss_certifies_more_and_seeds_repeat():
    columns, compact = CLASS_COLUMNS[MAX], Detail(tokens=False)
    ordinary, aware = trained(), trained(bound=1.0)
    certified = [n.certify(MAX, columns, compact).claim["certified"] for n in (ordinary, aware)]
    assert certified[0] < certified[1] == MAX.total
    again = trained(bound=1.0)
    assert all(torch.equal(a, b) for a, b in zip(aware.parameters(), again.parameters(), strict=True))
    margins = cell_margins(aware, columns, compact_cells(MAX, columns))
    assert (margins > 0).all(1).double().mean() > 0.5  # the twin and the checker agree on what was gained


def test_without_the_direct_path_the_mlp_has_to_do_the_work():
    ablated = [measure(trained(direct=weight), MAX, 1, 0, ablated=True).value for weight in (0.0, 10.0)]
    assert ablated[1] < ablated[0]


def test_measured_exactly_in_a_small_space_and_with_an_interval_else():
    network = trained()
    exact = measure(network, MAX, 10, seed=0)
    assert exact.inputs == MAX.total and exact.interval == (exact.value, exact.value)
    low, high = Measured(90, 100, False).interval
    assert abs(low - 0.8238) < 1e-4 and abs(high - 0.9510) < 1e-4  # Clopper and Pearson's
    assert Measured(100, 100, False).interval[1] == 1.0 and Measured(0, 100, False).interval[0] == 0.0


def test_the_exact_measure_counts_every_order():
    network = random_network(MAX, seed=4).float()
    from proofs.test_certificates import right

    assert measure(network, MAX, 1, seed=0).right == right(network, MAX)

"""Brute force in seconds: it goes through every input, and says what it guessed."""

from itertools import combinations_with_replacement, product
from types import SimpleNamespace

import pytest
import torch
from proofs.small_networks import ADDITION, LOOKUP, MAJORITY, MAX, MIN, all_sequences, random_network

from xtalk.proofs.t3.attention_network import AttentionNetwork, AttentionSizes
from xtalk.proofs.t3.brute_force import time_inputs
from xtalk.proofs.t3.network import Network
from xtalk.proofs.t3.sum_network import SumRunner
from xtalk.proofs.t3.tasks import ProductTask

MAJORITY_OF_4 = ProductTask("majority", 4, (0, 1, 2, 0, 1), 3)
PAIR = ProductTask("max", 2, (0, 1, 2, 0, 1, 2), 3)


def distinct_right(network, task, sequences) -> int:
    logits = network(sequences)
    return int((logits.argmax(1) == task.answer(sequences)).sum())


@pytest.mark.parametrize("size", [1, 16, 1 << 12])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("task", [MAX, MIN, MAJORITY, MAJORITY_OF_4, LOOKUP, ADDITION, PAIR])
def test_a_sum_network_is_run_on_every_input_once(task, residual, size):
    network = random_network(task, residual=residual, names_apart=1.0)
    sequences = all_sequences(task)
    if task.name != "lookup":
        sequences = sequences.sort(1).values.unique(dim=0)
    found = list(network.runner(task).run(size))
    assert sum(inputs for _, inputs in found) == len(sequences) == task.distinct
    right = distinct_right(network, task, sequences)
    assert sum(right for right, _ in found) == right and 0 < right < len(sequences)


@pytest.mark.parametrize("task", [MAX, MIN, PAIR])
def test_an_attention_network_is_run_on_every_input_once(task):
    network = AttentionNetwork(
        AttentionSizes(task.vocabulary, task.answers, 5, 4), torch.Generator().manual_seed(3)
    ).double()
    with torch.no_grad():
        network.b_out.normal_(generator=torch.Generator().manual_seed(1))
        network.w_query *= 3
    runner = network.runner(task)
    every = range(task.vocabulary)
    sequences = torch.tensor(
        [(*before, last) for before, last in product(combinations_with_replacement(every, task.n - 1), every)]
    )
    found = list(runner.run(16))
    assert sum(inputs for _, inputs in found) == len(sequences) == runner.distinct
    right = distinct_right(network, task, sequences)
    assert sum(right for right, _ in found) == right and 0 < right < len(sequences)


def steady_clock(monkeypatch, task, rate: float):
    """A clock by which every runner takes 1 / rate seconds for an input."""
    now = SimpleNamespace(seconds=0.0)
    plain = SumRunner._right

    def right(self, begin, end):
        now.seconds += len(begin) * len(end) / rate
        return plain(self, begin, end)

    monkeypatch.setattr(SumRunner, "_right", right)
    return lambda: now.seconds


@pytest.mark.parametrize("task", [MAX, MAJORITY, LOOKUP])
def test_a_space_within_the_budget_is_measured_and_another_estimated(monkeypatch, task):
    network = random_network(task).float()
    clock = steady_clock(monkeypatch, task, rate=1e3)
    wanted = task.distinct / 1e3
    measured = time_inputs(network.runner(task), budget=3 * wanted, clock=clock)
    assert not measured.estimated and measured.seconds == pytest.approx(wanted)
    estimated = time_inputs(network.runner(task), budget=wanted / 2, clock=clock)
    assert estimated.estimated and estimated.seconds == pytest.approx(wanted)


def test_an_estimate_agrees_with_what_is_measured():
    task = ProductTask("max", 3, tuple(range(8)) * 8, 8)
    network = random_network(task).float()
    measured, estimated = time_inputs(network.runner(task)), time_inputs(network.runner(task), budget=1e-4)
    assert estimated.estimated and not measured.estimated
    assert measured.seconds / 30 < estimated.seconds < 3 * measured.seconds  # pieces are smaller than samples


def test_both_networks_are_what_proving_needs():
    generator = torch.Generator().manual_seed(0)
    networks = [random_network(MAX), AttentionNetwork(AttentionSizes(7, 3, 5, 4), generator)]
    assert all(isinstance(network, Network) for network in networks)
    assert [network.theorem for network in networks] == ["T3", "T3 attention"]
    assert networks[0].brute_force_multiply_adds(MAX) == MAX.distinct * networks[0].sizes.neurons * (3 + 3)

"""The attention network with positions, its runner, and its certificates."""

import pytest
import torch
from proofs.small_networks import all_sequences
from reference.attention_space import run

from xtalk.proofs.config import PositionsConfig
from xtalk.proofs.t3.attention_network import AttentionSizes
from xtalk.proofs.t3.positions_network import PositionsNetwork, PositionsRunner
from xtalk.proofs.t3.prove_positions import train_positions
from xtalk.proofs.t3.tasks import ProductTask

TASKS = [ProductTask(name, n, (0, 1, 2, 3, 4), 5) for name, n in (("max", 2), ("max", 3), ("min", 4))]
LEARNING = {"vocabulary": 6, "n": 3, "d_model": 12, "network_steps": 900}


def small(task: ProductTask) -> PositionsNetwork:
    sizes = AttentionSizes(task.vocabulary, task.answers, 5, 4)
    network = PositionsNetwork(sizes, task.n, torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        network.w_query *= 20
        network.b_out.normal_(generator=torch.Generator().manual_seed(1))
    return network


def test_the_network_is_the_checkers_once_the_scale_is_a_part_of_it():
    network, tokens_Bn = small(TASKS[1]), all_sequences(TASKS[1])[::7]
    before = network(tokens_Bn)
    network.fold_scale()
    network.fold_scale()
    torch.testing.assert_close(network(tokens_Bn), before)
    tensors = {name: (tuple(t.shape), t.flatten().tolist()) for name, t in network.state_dict().items()}
    for tokens, logits in zip(tokens_Bn.tolist(), before, strict=True):
        assert logits.tolist() == pytest.approx(run(tensors, tokens, True)[1], abs=1e-12)
    assert "position" in tensors and not network.b_out.requires_grad and not network.b_unembed.requires_grad


@pytest.mark.parametrize("task", TASKS)
def test_every_input_is_run_once(task):
    network, sequences = small(task), all_sequences(task)
    network.fold_scale()
    runner = PositionsRunner(network, task)
    found = list(runner.run(16))
    assert sum(inputs for _, inputs in found) == len(sequences) == runner.distinct
    right = int((network(sequences).argmax(1) == task.answer(sequences)).sum())
    assert sum(right for right, _ in found) == right and 0 < right < len(sequences)
    assert runner.sampled(256, torch.Generator().manual_seed(0)) == 256


@pytest.mark.parametrize("name", ["max", "min"])
def test_what_was_learned_is_certified_and_no_more_than_is_true(name):
    network, task = train_positions(PositionsConfig(task=name, **LEARNING))
    assert task.answers == task.vocabulary == 6 and network.scale == 1.0
    assert not network.b_out.any() and not network.b_unembed.any()
    certificate = network.certify(task)
    right = sum(right for right, _ in PositionsRunner(network, task).run(64))
    assert task.total // 2 < certificate.claim["certified"] <= right <= task.total
    assert certificate.spec["task"]["arithmetic"] == "float32" and certificate.certificate["advice"] == {}

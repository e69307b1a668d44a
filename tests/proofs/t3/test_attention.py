"""The attention network, and the prover of its certificates."""

import pytest
import torch
from proofs.small_networks import MAX, MIN, all_sequences
from reference.attention_space import run

from xtalk.proofs.t3.attention_network import AttentionNetwork, AttentionSizes
from xtalk.proofs.t3.columns import Columns
from xtalk.proofs.t3.detail import ALIKE
from xtalk.proofs.t3.training import NetworkTraining, learn_task

COLUMNS = Columns((0, 1, 2, 0, 1, 3, 2))


def small(seed: int = 0) -> AttentionNetwork:
    network = AttentionNetwork(AttentionSizes(7, 3, 5, 4), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + 1))
            )
    return network


def test_the_network_is_the_checkers():
    network = small().double()
    tensors = {name: (tuple(t.shape), t.flatten().tolist()) for name, t in network.state_dict().items()}
    tokens_Bn = all_sequences(MAX)[::17]
    for tokens, logits in zip(tokens_Bn.tolist(), network(tokens_Bn), strict=True):
        assert logits.tolist() == pytest.approx(run(tensors, tokens, True)[1], abs=1e-12)
    ablated = network(tokens_Bn, ablated=True)
    expected = (network.embed[tokens_Bn[:, -1]] + network.b_out) @ network.unembed + network.b_unembed
    torch.testing.assert_close(ablated, expected)
    parts = network.activations(tokens_Bn)
    torch.testing.assert_close((parts.sum(1)) @ network.unembed + network.b_unembed, network(tokens_Bn))


@torch.no_grad()
def right(network: AttentionNetwork, task) -> int:
    tokens_Bn = all_sequences(task)
    return int((network.double()(tokens_Bn).argmax(1) == task.answer(tokens_Bn)).sum())


def test_certificates_are_ever_shorter_and_looser_and_never_exceed_the_truth():
    for task in (MAX, MIN):
        network = small()
        learn_task(network, task, NetworkTraining(steps=150, batch=64, lr=0.02))
        proofs = [network.certify(task, COLUMNS, alike) for alike in ALIKE]
        certified = [proof.claim["certified"] for proof in proofs]
        lengths = [proof.verdict.length.evaluations for proof in proofs]
        assert sorted(certified, reverse=True) == certified and certified[0] > task.total // 2
        assert sorted(lengths, reverse=True) == lengths and lengths[0] > lengths[2]
        assert certified[0] <= right(network, task)


def test_brute_force_goes_through_each_last_token_and_multisets_of_the_others():
    assert small().per_input_multiply_adds(MAX) == 3 * 3
    assert small().brute_force_multiply_adds(MAX) == 7 * (7 * 8 // 2) * 3 * 3

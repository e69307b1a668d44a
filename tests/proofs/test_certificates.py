import json

import pytest
import torch
import xtalk_check
from proofs.small_networks import ADDITION, ANCHORED, CLASS_COLUMNS, MAX, all_sequences, random_network

from xtalk.errors import XtalkError
from xtalk.proofs.certificates import certify, container
from xtalk.proofs.t3.columns import Columns
from xtalk.proofs.t3.detail import Detail

DETAILS = (Detail(tokens=False), Detail(), Detail(blocks=3), Detail(token_anchors=True))


def right(network, task) -> int:
    sequences = all_sequences(task)
    logits, answers = network.double()(sequences), task.answer(sequences)[:, None]
    others = logits.scatter(1, answers, -torch.inf).amax(1)
    return int((logits.gather(1, answers)[:, 0] > others).sum())


@pytest.mark.parametrize("task", ANCHORED, ids=lambda task: task.name)
def test_no_detail_certifies_more_than_the_truth_and_brute_force_all_of_it(task):
    network = trained_a_little(task)
    true = right(network, task)
    assert network.certify_by_brute_force(task).claim == {"certified": true, "total": task.total}
    claims = [network.certify(task, CLASS_COLUMNS[task], detail).claim for detail in DETAILS]
    assert all(claim["total"] == task.total for claim in claims)
    assert 0 < max(claim["certified"] for claim in claims) <= true


def test_modular_addition_goes_through_every_multiset_of_columns():
    network, columns = trained_a_little(ADDITION), Columns(ADDITION.classes)
    certificate = network.certify(ADDITION, columns, Detail(blocks=3))
    assert 0 < certificate.claim["certified"] <= right(network, ADDITION)
    assert network.certify(ADDITION, columns).claim == certificate.claim  # the default
    with pytest.raises(XtalkError, match="does not accept"):
        network.certify(ADDITION, columns, Detail(blocks=2))


def test_the_files_are_accepted_and_one_more_input_is_not(tmp_path):
    certificate = trained_a_little(MAX).certify(MAX, CLASS_COLUMNS[MAX])
    path = certificate.save(tmp_path, "max")
    files = [tmp_path / f"max{end}" for end in (".json", ".spec.json", ".weights")]
    assert path == files[0]
    contents = [file.read_bytes() for file in files]
    assert xtalk_check.check(*contents).verdict == "accepted"
    tampered = json.loads(contents[0])
    tampered["claim"]["certified"] += 1
    assert xtalk_check.check(json.dumps(tampered).encode(), *contents[1:]).verdict == "rejected"


def test_a_certificate_the_checker_refuses_is_an_error():
    weights = container(trained_a_little(MAX).state_dict())
    spec = MAX.spec("T3", "relu", True, "0" * 64)
    with pytest.raises(XtalkError, match="other weights"):
        certify(spec, weights, {}, MAX.total)


def trained_a_little(task):
    """A network that is right on most sequences, not on all."""
    from xtalk.proofs.t3.training import NetworkTraining, train_network

    network = random_network(task, names_apart=0.1).float()
    train_network(network, task, NetworkTraining(60, batch=64, lr=0.02))
    return network

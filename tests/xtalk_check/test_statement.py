"""What is printed of an accepted certificate: the claim and all that it depends on, in words."""

import json
from hashlib import sha256

import pytest
from reference.attention_space import (
    attention_certificate,
    attention_solver,
    attention_spec,
    positions_certificate,
    positions_solver,
    positions_spec,
)
from reference.finite_data import finite_certificate, finite_spec, random_problem
from reference.language_tail import language_certificate, language_spec, random_tail
from reference.product_space import certificate, codebook, container, encoded, solver, spec
from xtalk_check import check
from xtalk_check.main import main

WEIGHTS = container(solver(4))
PINNED = sha256(WEIGHTS).hexdigest()
GOOD = certificate(WEIGHTS, "T3", 60, rest=codebook(range(4)))


def said(given, wanted, weights):
    found = check(encoded(given), encoded(wanted), weights)
    assert found.verdict == "accepted", found.reason
    return found.statement


def test_a_claim_about_sequences():
    found = said(GOOD, spec(), WEIGHTS)
    assert found.claims == [
        "at least 60 of 64 sequences that have an answer are answered right (0.9375)"  # what is claimed
    ]
    assert found.task == "max of n = 3 of 4 tokens, 4 answers: the largest class among the tokens"
    assert found.network == "the sum of 3 embeddings, one MLP with ReLU, an unembedding; no residual path"
    assert found.ties.startswith("a tie is an error") and found.arithmetic.startswith("real numbers")
    assert found.assumptions == []


def test_rounding_and_activation_are_those_of_the_specification():
    given = certificate(WEIGHTS, "brute_force", 1)
    found = said(given, spec("brute_force", arithmetic="float32", residual=True), WEIGHTS)
    assert found.arithmetic.startswith("float32") and len(found.assumptions) == 3
    assert found.network.endswith("a residual path") and "no residual" not in found.network
    found = said(certificate(WEIGHTS, "brute_force", 0), spec("brute_force", activation="gelu"), WEIGHTS)
    assert "GELU (erf)" in found.network
    for name, words in (("min", "the smallest class"), ("modular_addition", "modulo the number")):
        assert (
            words
            in said(certificate(WEIGHTS, "brute_force", 0), spec("brute_force", name=name), WEIGHTS).task
        )


def test_a_claim_about_attention():
    weights = container(attention_solver(4))
    found = said(attention_certificate(weights, 64), attention_spec(), weights)
    assert found.claims == ["at least 64 of 64 sequences that have an answer are answered right (1)"]
    assert "one head of attention" in found.network and found.arithmetic.startswith("real numbers")


def test_a_claim_about_positions():
    weights = container(positions_solver(4, 3))
    found = said(positions_certificate(weights, 64), positions_spec(arithmetic="float32"), weights)
    assert "with positions" in found.network and found.network.endswith("; a residual path")
    assert found.arithmetic.startswith("float32") and "softmax" in found.assumptions[1]


def test_rounding_of_attention_and_data_is_said():
    weights, tensors = container(attention_solver(4)), random_problem(3, T=3)
    found = said(attention_certificate(weights, 64), attention_spec(arithmetic="float32"), weights)
    assert found.arithmetic.startswith("float32") and "softmax" in found.assumptions[1]
    wanted = finite_spec(tensors, [0, 1, 2], arithmetic="float32")
    found = said(finite_certificate(tensors, 1, 3, form="exact"), wanted, container(tensors))
    assert found.arithmetic.startswith("float32") and "activation function" in found.assumptions[2]


def test_a_claim_about_data():
    """The share is rounded down."""
    tensors, labels = random_problem(3, T=3), [0, 1, 2]
    wanted, weights = finite_spec(tensors, labels), container(tensors)
    found = said(finite_certificate(tensors, 1, 3, form="exact"), wanted, weights)
    assert found.claims == ["at least 1 of 3 inputs of the data are answered right (0.333333)"]
    assert wanted["task"]["data"] in found.task and "GELU (erf)" in found.network
    assert found.ties.startswith("a tie is an error") and len(found.assumptions) == 1


def test_a_claim_about_a_language_model():
    tensors = random_tail(3)
    given = language_certificate(tensors, 98_765_432, 5, form="exact")
    found = said(given, language_spec(tensors, [0, 5, 2, 3, 5]), container(tensors))
    assert found.claims == ["the mean cross-entropy of the 5 targets is at most 98.765432 nats per token"]
    assert "activations before the MLP are given" in found.assumptions[0]


@pytest.mark.parametrize("pinned", [True, False])
def test_text_and_json_say_the_same(tmp_path, capsys, pinned):
    wanted = encoded(spec(arithmetic="float32") | {"weights": PINNED if pinned else None})
    given = encoded(certificate(WEIGHTS, "T3", 0))
    for name, content in (("c", given), ("s", wanted), ("w", WEIGHTS)):
        (tmp_path / name).write_bytes(content)
    arguments = [str(tmp_path / "c"), "--spec", str(tmp_path / "s"), "--weights", str(tmp_path / "w")]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pinned"], found["weights"], found["spec"]) == (pinned, PINNED, sha256(wanted).hexdigest())
    assert main(arguments) == 0
    text = capsys.readouterr().out
    words = found["statement"]
    for part in (*words["claims"], *words["assumptions"], words["task"], words["network"], words["ties"]):
        assert part in text
    assert words["arithmetic"] in text and found["spec"] in text
    assert ("NOT pinned by the specification" in text) == (not pinned)
    assert set(found["length"]) == {"multiply_adds", "evaluations", "reads"}

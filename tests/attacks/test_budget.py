"""Small files that ask for endless work: each is refused in one line, at once, in little memory.

The checks run in a process of its own whose address space and time are limited: an attempt would end it.
"""

import json
import os
import resource
import subprocess
import sys

import pytest
from reference.attention_space import (
    attention_certificate,
    attention_solver,
    attention_spec,
    placed,
    positions_certificate,
    positions_solver,
    positions_spec,
    random_attention,
)
from reference.finite_data import finite_certificate, finite_spec, random_advice, random_problem
from reference.language_tail import language_certificate, language_spec, random_features, random_tail
from reference.product_space import certificate, codebook, container, encoded, random_network, solver, spec
from xtalk_check import Budget, check
from xtalk_check.limits import EVALUATION
from xtalk_check.main import main

SPACE = 2 << 30  # bytes of address space; Python and its libraries take some of it
SECONDS = 30  # of processor time, for all of them; after it the kernel ends the process


def sequences(theorem: str, tokens: int, D: int, N: int, C: int, n: int, advice: dict, **task):
    """A certificate about a random network, with a spec; classes go round."""
    weights = container(random_network(0, tokens, D, N, C))
    classes = [t % C for t in range(tokens)]
    wanted = spec(theorem, n=n, answers=C, classes=classes, **task)
    return certificate(weights, theorem, 0, 0, **advice), wanted, weights


def attention(tokens: int, C: int, n: int, queries=None, **task):
    weights = container(random_attention(0, tokens, 1, 1, C))
    wanted = attention_spec(n=n, answers=C, classes=[t % C for t in range(tokens)], **task)
    every = codebook(range(tokens))
    return (
        attention_certificate(weights, 0, 0, query=queries or every, anchor=every, rest=every),
        wanted,
        weights,
    )


def positions(tokens: int, C: int, n: int):
    weights = container(placed(random_attention(0, tokens, 1, 1, C), n))
    return (
        positions_certificate(weights, 0, 0),
        positions_spec(n=n, answers=C, classes=[*range(tokens)]),
        weights,
    )


def data(advice: dict, T: int = 2, D: int = 2, N: int = 3, C: int = 3):
    tensors, labels = random_problem(0, T=T, D=D, N=N, C=C), [0] * T
    return finite_certificate(tensors, 0, T, **advice), finite_spec(tensors, labels), container(tensors)


def explained(**changed) -> dict:
    return {"form": "tables", "bits": 0, "base": [0, 0], "features": [[1, 0]], "codes": [[], []]} | changed


ANCHORS = {"anchor": codebook(range(60_000)), "rest": codebook(range(60_000)), "bits": 6}
FEW = {"anchor": codebook(range(8)), "rest": codebook([0] * 8), "bits": 6}
MANY = {"anchor": codebook(range(2048)), "rest": codebook([0] * 2048), "bits": 6}
KEYS = {"anchor": codebook(range(252)), "rest": codebook(range(252)), "bits": 6}
EVERY = {"anchor": codebook(range(64)), "rest": codebook(range(64)), "bits": 6}
ENDLESS = {
    "cells of attention": lambda: attention(48, 2, 40),
    "cells of attention, of one answer": lambda: attention(48, 1, 40),
    "cells of attention, the least": lambda: attention(32, 2, 64, name="min"),
    "a list of cells": lambda: attention(36, 1, 7, queries=codebook([0], [0] * 36)),
    "cells of T3": lambda: sequences("T3", 64, 1, 1, 2, 64, EVERY),
    "cells of T3, of one answer": lambda: sequences("T3", 64, 1, 1, 1, 64, EVERY),
    "cells of T3, of a majority": lambda: sequences("T3", 64, 1, 1, 2, 63, EVERY, name="majority"),
    "cells of T3, added up": lambda: sequences("T3", 64, 1, 1, 2, 64, EVERY, name="modular_addition"),
    "cells of T3, looked up": lambda: sequences("T3", 252, 1, 1, 2, 64, KEYS, name="lookup"),
    "cells of T3, of many anchors": lambda: sequences("T3", 60_000, 1, 1, 1, 64, ANCHORS),
    "every sequence": lambda: sequences("brute_force", 64, 1, 1, 2, 64, {}),
    "every sequence, of one answer": lambda: sequences("brute_force", 64, 1, 1, 1, 64, {}, name="majority"),
    "every sequence, looked up": lambda: sequences("brute_force", 252, 1, 1, 2, 64, {}, name="lookup"),
    "answers x neurons": lambda: sequences("T3", 8, 1, 6000, 6000, 2, FEW),
    "answers x answers x neurons": lambda: sequences("T3", 2048, 1, 256, 2048, 2, MANY),
    "answers x answers x neurons of data": lambda: data(
        {"form": "charts", "bits": 0, "charts": [[c, 0, 0, 0] for c in range(4096)], "codes": [0, 0]},
        N=1024,
        C=4096,
    ),
    "tokens x neurons": lambda: sequences("brute_force", 8192, 1, 8192, 2, 1, {}),
    "tokens x tokens": lambda: attention(8192, 2, 2),
    "tokens x tokens x tokens": lambda: positions(2500, 2500, 2),
    "tokens x answers": lambda: positions(4, 1 << 20, 2),
    "tokens x answers x positions": lambda: positions(64, 1 << 13, 64),
    "pairs of coordinates": lambda: data(
        {"form": "charts", "bits": 0, "charts": [[0, 0] + [0] * 512], "codes": [0, 0]}, D=512, N=256
    ),
    "charts": lambda: data(
        {"form": "charts", "bits": 0, "charts": [[0, 0] + [0] * 64] * 9999, "codes": [0, 0]}, D=64, N=256
    ),
    "one feature, many times": lambda: data(explained(codes=[[0, 1] * 150_000, []], steps=[1])),
    "one feature, at many places": lambda: data(
        explained(codes=[[e for i in range(90_000) for e in (0, i)], []], steps=[1]), N=512
    ),
    "many features": lambda: data(explained(features=[[1, 0]] * 9000, steps=[1] * 9000)),
    "inputs x neurons": lambda: data({"form": "exact"}, T=4096, D=1, N=8192),
}


def repeated_key(count: int) -> bytes:
    """An object whose first key stands at the end once more, behind many others."""
    return b'{"0": 1' + b"".join(b', "%d": 1' % i for i in range(1, count)) + b', "0": 1}'


def run_all() -> None:
    """Print a JSON line for each case, within the limits."""
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for name, case in ENDLESS.items():
        given, wanted, weights = case()
        found = check(encoded(given), encoded(wanted), weights)
        print(json.dumps([name, found.verdict, found.reason, found.exit_code]), flush=True)
    found = check(repeated_key(200_000), b"", b"")
    print(json.dumps(["a key twice", found.verdict, found.reason, found.exit_code]), flush=True)


@pytest.fixture(scope="module")
def found() -> dict[str, list]:
    """What came of each case, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[-500:])
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_work_is_refused_before_it_is_done(found, name):
    verdict, reason, exit_code = found[name]
    assert (verdict, exit_code) == ("over budget", 3), reason
    assert "takes" in reason and "the budget is" in reason and "\n" not in reason and len(reason) < 200


def test_a_key_that_stands_twice_among_many_is_found_at_once(found):
    assert found["a key twice"] == ["rejected", "the certificate has the key '0' twice", 1]


def test_files_that_are_too_large_are_not_read(tmp_path, capsys):
    for name, content in (("c", encoded(certificate(WEIGHTS))), ("s", encoded(spec())), ("w", WEIGHTS)):
        (tmp_path / name).write_bytes(content)
    c, s, w = (str(tmp_path / name) for name in "csw")
    assert main([c, "--spec", s, "--weights", w]) == 0
    for arguments, what in (
        (["/dev/zero", "--spec", s, "--weights", w], "certificate"),
        ([c, "--spec", "/dev/zero", "--weights", w], "specification"),
        ([c, "--spec", s, "--weights", "/dev/zero"], "weights"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--memory", "1000"]) == 3
        out = capsys.readouterr().out
        assert out.startswith(f"over budget: reading the {what} takes the memory of 1,001 balls"), out


def test_weights_have_few_tensors():
    many = container({f"t{i:05}": ((1,), [0.0]) for i in range(65)})
    found = check(encoded(certificate(many)), encoded(spec()), many)
    assert found.verdict == "rejected" and "65 tensors; at most 64" in found.reason


def test_messages_are_plain_text():
    """Whatever keys and names are, they are written in ASCII, and cut short."""
    for key in ("\ud800", "\u00e9" * 50_000, "line\nfeed", "\u2028"):
        given = certificate(WEIGHTS) | {key: 1}
        for content in (encoded(given), encoded(given)[:-1] + b', "weights": 1}'):
            reason = check(content, encoded(spec()), WEIGHTS).reason
            assert reason.isascii() and reason.isprintable() and len(reason) < 400
    named = WEIGHTS.replace(b"w_out", "w\u00e9ut".encode("latin-1"))
    assert check(encoded(certificate(named)), encoded(spec()), named).reason.isascii()


WEIGHTS, HEADS = container(solver(4)), container(attention_solver(4))


def honest() -> dict[str, tuple]:
    """A certificate of each theorem and form: it, its specification, its weights."""
    every, tensors, labels = {"rest": codebook(range(4))}, random_problem(3), [0, 1, 2, 1, 0]
    finite, weights = finite_spec(tensors, labels), container(tensors)
    forms = {
        "exact": {"form": "exact"},
        "tables": random_advice(3) | {"form": "tables", "steps": [1, 7, 64, 300]},
        "charts": {"form": "charts", "bits": 8, "charts": [[0, 900, 0, 0]], "codes": [0] * 5},
    }
    last, targets = random_tail(3), [0, 5, 2, 3, 5]
    language, tailed = language_spec(last, targets), container(last)
    heads = container(random_attention(0, 4, 1, 1, 1))
    placing = container(positions_solver(4, 3))
    lone = attention_certificate(heads, 64), attention_spec(answers=1, classes=[0] * 4), heads
    return {
        "T3": (certificate(WEIGHTS, "T3", 64, **every), spec(), WEIGHTS),
        "T3, in doubt": (certificate(WEIGHTS, "T3"), spec(activation="gelu"), WEIGHTS),
        "T3 in float32": (certificate(WEIGHTS, "T3", 1), spec(arithmetic="float32"), WEIGHTS),
        "brute force": (certificate(WEIGHTS, "brute_force", 64), spec("brute_force"), WEIGHTS),
        "attention": (attention_certificate(HEADS, 64), attention_spec(), HEADS),
        "attention in float32": (
            attention_certificate(HEADS, 64),
            attention_spec(arithmetic="float32"),
            HEADS,
        ),
        "attention, of one answer": lone,
        "positions": (positions_certificate(placing, 64), positions_spec(), placing),
        "positions in float32": (
            positions_certificate(placing, 64),
            positions_spec(arithmetic="float32"),
            placing,
        ),
        "data in float32": (
            finite_certificate(tensors, 0, 5, form="exact"),
            finite_spec(tensors, labels, arithmetic="float32"),
            weights,
        ),
        **{
            name: (finite_certificate(tensors, 0, 5, **form), finite, weights) for name, form in forms.items()
        },
        "language, exact": (language_certificate(last, 1 << 50, 5, form="exact"), language, tailed),
        "language": (language_certificate(last, 1 << 50, 5, **random_features(3)), language, tailed),
    }


HONEST = honest()


@pytest.mark.parametrize("name", HONEST)
def test_no_more_is_refused_than_exceeds_the_budget(name):
    """What a check plans is never more than what it then does; and each unit less is a unit too few."""
    given, wanted, weights = HONEST[name]
    files = encoded(given), encoded(wanted), weights
    length = check(*files).length
    units = length.multiply_adds + EVALUATION * length.evaluations + length.reads + length.steps
    assert check(*files, Budget(work=units)).verdict == "accepted", check(*files, Budget(work=units)).reason
    for less in (units - 1, units // 2, units // 10, 0):
        found = check(*files, Budget(work=less))
        assert found.verdict == "over budget" and "raise it with --budget" in found.reason
    for balls in (length.held - 1, length.held // 2, 0):
        found = check(*files, Budget(memory=balls))
        assert found.verdict == "over budget" and "raise it with --memory" in found.reason


if __name__ == "__main__":
    run_all()

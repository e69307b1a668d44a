"""The command: verdicts, exit codes, what is printed; and what the package may import."""

import ast
import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import xtalk_check
from flint import arb_mat
from reference.product_space import certificate, codebook, container, encoded, solver, spec
from xtalk_check.errors import Rejected
from xtalk_check.main import main
from xtalk_check.work import Work

from xtalk import cli

SOURCE = sorted(Path(xtalk_check.__file__).parent.glob("*.py"))
WEIGHTS = container(solver(4))


@pytest.fixture
def files(tmp_path):
    """Writes a certificate, its specification and weights; returns the arguments of a check."""

    def write(certificate_: bytes, spec_: bytes = encoded(spec()), weights: bytes = WEIGHTS) -> list[str]:
        for name, content in (("c.json", certificate_), ("c.spec.json", spec_), ("c.weights", weights)):
            (tmp_path / name).write_bytes(content)
        spec_file, weights_file = str(tmp_path / "c.spec.json"), str(tmp_path / "c.weights")
        return [str(tmp_path / "c.json"), "--spec", spec_file, "--weights", weights_file]

    return write


def good(certified: int = 64) -> bytes:
    return encoded(certificate(WEIGHTS, "T3", certified, rest=codebook(range(4))))


def test_exit_codes(files, capsys):
    assert main(files(good())) == 0
    assert "accepted: T3 proves" in capsys.readouterr().out
    assert main(files(good(65))) == 1
    assert capsys.readouterr().out == (
        "rejected: the claim is that 65 inputs are answered right; 64 are proven\n"
    )
    assert main(files(b"no JSON")) == 2
    assert "not a certificate: the certificate is not JSON" in capsys.readouterr().out
    assert main(files(good(), b'{"format": "else"}')) == 2
    assert main([*files(good())[:-1], "/nowhere"]) == 2
    assert "/nowhere: No such file" in capsys.readouterr().out


def test_json_output(files, capsys):
    assert main([*files(good(60)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "xtalk.verdict/2" and found["verdict"] == "accepted"
    assert found["claim"] == {"certified": 60, "total": 64} and found["proven"]["certified"] == 64
    assert found["length"]["multiply_adds"] > 0 and found["length"]["evaluations"] > 0
    assert found["length"]["reads"] == 11  # the claim's 2, 4 + 4 blocks, bits


def test_both_commands_are_the_same(files, capsys, monkeypatch):
    arguments = files(good())
    with pytest.raises(SystemExit) as exit_:
        monkeypatch.setattr(sys, "argv", ["xtalk", "check", *files(good(65))])
        cli.main()
    assert exit_.value.code == 1
    found = subprocess.run(
        [sys.executable, "-m", "xtalk_check", *files(good()), "--json"], capture_output=True, text=True
    )
    assert found.returncode == 0 and json.loads(found.stdout)["verdict"] == "accepted", arguments


def test_identity_is_checked():
    """Theorem, weights and every key: whatever is not accounted for is refused."""
    given = json.loads(good())
    other = container(solver(4) | {"extra": ((1,), [1.0])})
    for certificate_, spec_, weights, reason in [
        (given | {"weights": "0" * 64}, spec(), WEIGHTS, "certificate is about other weights"),
        (given, spec() | {"weights": "0" * 64}, WEIGHTS, "specification is about other weights"),
        (given | {"advice": given["advice"] | {"x": 1}}, spec(), WEIGHTS, "unknown key 'x'"),
        (given | {"weights": sha256(other).hexdigest()}, spec(), other, "have extra"),
        (given | {"theorem": "brute_force"}, spec(), WEIGHTS, "expected T3"),
        (given | {"x": 1}, spec(), WEIGHTS, "unknown key 'x'"),
        (given, spec() | {"x": 1}, WEIGHTS, "unknown key 'x'"),
        (given, {k: v for k, v in spec().items() if k != "weights"}, WEIGHTS, "specification lacks weights"),
    ]:
        verdict = xtalk_check.check(encoded(certificate_), encoded(spec_), weights)
        assert verdict.verdict == "rejected" and reason in verdict.reason, verdict.reason


def test_length_is_counted_where_work_is_done():
    work = Work()
    work.product(arb_mat(2, 3, [1] * 6), arb_mat(3, 5, [1] * 15))
    assert work.multiply_adds == 30
    assert work.evaluate(lambda x: x, [arb_mat(1, 1, [1])[0, 0]] * 4) and work.evaluations == 4
    with pytest.raises(Rejected, match="3 columns with 2 rows"):
        work.product(arb_mat(2, 3, [1] * 6), arb_mat(2, 2, [1] * 4))


def test_the_length_of_brute_force():
    """4 tokens, n 3: 20 multisets of 8 neurons and 4 classes, after multiplying the weights out.

    Of each, the different tokens: 4 times 1, 12 times 2, 4 times 3.
    """
    found = xtalk_check.check(
        encoded(certificate(WEIGHTS, "brute_force", 64)), encoded(spec("brute_force")), WEIGHTS
    )
    assert found.verdict == "accepted"
    assert found.length.evaluations == 20 * 8
    assert found.length.multiply_adds == (4 + 4) * 4 * 8 + 4 * 4 + 20 * 8 * 4 + (4 + 24 + 12) * (8 + 3)


def test_the_checker_stands_alone():
    allowed = set(sys.stdlib_module_names) | {"flint", "xtalk_check"}
    for file in SOURCE:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, (file.name, names)
            assert not isinstance(node, ast.Assert), file.name
            if isinstance(node, ast.Constant):
                assert not isinstance(node.value, float) or node.value in (0.0, 0.5), (file.name, node.lineno)


def test_every_function_says_what_it_does():
    for file in SOURCE:
        module = ast.parse(file.read_text())
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in [*module.body, *(node for class_ in classes for node in class_.body)]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), (file.name, node.name)

"""`xtalk selftest`: agreement where all is well, and a fast path that is slightly wrong is named."""

import json
import sys

import pytest
import torch

from xtalk import cli
from xtalk.interactions import sum_minus_max
from xtalk.selftest import comparing
from xtalk.selftest.comparing import ALLOWED, Comparison, comparisons

CPU = torch.device("cpu")


def deviating(found=None) -> set[str]:
    return {one.name for one in (comparisons(CPU) if found is None else found) if not one.agrees}


@pytest.fixture(scope="module")
def found() -> list[Comparison]:
    return list(comparisons(CPU))


def test_every_fast_path_is_within_rounding_of_its_twin(found):
    assert deviating(found) == set()
    named = {(one.name, one.precision) for one in found}
    assert len(named) == len(found)
    for name in ("pair matrix", "penalty keep_one, gradient", "training jumprelu, codes", "splice, value"):
        assert (name, "float32") in named
    assert {precision for _, precision in named} == set(ALLOWED)
    assert all(one.deviation > 0 for one in found)  # a twin that is the fast path itself would show nothing


def test_a_gradient_that_is_slightly_wrong_is_named(monkeypatch):
    whole = sum_minus_max.kernels.others_gradient
    monkeypatch.setattr(sum_minus_max.kernels, "others_gradient", lambda *of: whole(*of) * 1.001)
    assert deviating() == {"penalty sum_minus_max, gradient", "penalty out_norm, gradient"}


def test_products_in_tf32_are_named(monkeypatch):
    """A GPU may round the factors of float32 products to 10 bits."""
    whole = comparing.codes_times_rows

    def rounded(codes, rows_LX):
        bits = rows_LX.detach().view(torch.int32)
        return whole(codes, rows_LX + ((bits & ~0x1FFF).view(torch.float32) - rows_LX).detach())

    monkeypatch.setattr(comparing, "codes_times_rows", rounded)
    assert "decoding from active rows" in deviating()


def test_nan_agrees_with_nothing():
    assert not Comparison("x", "float32", float("nan")).agrees


def test_the_command_says_each_deviation_and_a_verdict(monkeypatch, capsys):
    few = [Comparison("pair matrix", "float32", 1e-7), Comparison("splice, value", "float32", 0.1)]

    def said(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["xtalk", "selftest", "--device", "cpu", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code or 0, capsys.readouterr().out

    monkeypatch.setattr(comparing, "comparisons", lambda device: iter(few))
    code, words = said()
    assert code == 1 and "splice, value" in words and "<- deviates" in words and "1 deviate" in words
    monkeypatch.setattr(comparing, "comparisons", lambda device: iter(few[:1]))
    assert said()[0] == 0
    data = json.loads(said("--json")[1])
    assert data["agrees"] and data["comparisons"][0] == {
        "name": "pair matrix",
        "precision": "float32",
        "deviation": 1e-7,
        "allowed": ALLOWED["float32"],
        "agrees": True,
    }

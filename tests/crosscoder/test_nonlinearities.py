"""From pre-activations to codes, in training: how many are kept, ties, and where gradients go."""

import re
from pathlib import Path

import pytest
import torch
from crosscoder.small import activations, small_crosscoder
from hypothesis import given
from hypothesis import strategies as st

import xtalk
from xtalk.crosscoder.nonlinearities import (
    NONLINEARITIES,
    above_threshold,
    batch_topk,
    jumprelu,
    nonlinearity,
    topk,
)
from xtalk.crosscoder.pre_activations import PreActivations, largest_but
from xtalk.errors import XtalkError


def pre_activations(tokens: int = 30, latents: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, latents, generator=torch.Generator().manual_seed(seed))


def test_the_registry_names_what_it_knows():
    assert {name: nonlinearity(name).name for name in NONLINEARITIES} == {n: n for n in NONLINEARITIES}
    with pytest.raises(
        XtalkError, match=r"unknown nonlinearity 'gelu'; expected one of relu, topk, batchtopk, j"
    ):
        nonlinearity("gelu")


def test_nonlinearities_are_named_in_their_file_alone():
    """A test for a name elsewhere would silently take a new one for another."""
    root = Path(xtalk.__file__).parent
    rooms = [root / room for room in ("crosscoder", "training", "reading", "evaluation")]
    files = [f for room in rooms for f in room.rglob("*.py") if f.name != "nonlinearities.py"]
    files = [f for f in files if f.parent.name != "formats"]  # there the names are peers'
    asked = re.compile(rf"""(==|!=|\bin) .*["']({"|".join(NONLINEARITIES)})["']""")
    known = [f"{f}: {line}" for f in files for line in f.read_text().splitlines() if asked.search(line)]
    assert known == []


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_sparsity_losses_are_those_of_a_loop(name: str):
    pre_BL, norm_L = pre_activations(), torch.linspace(0.5, 2, 20)
    kind = nonlinearity(name)
    codes, l0 = kind.encode_for_training(PreActivations.of(pre_BL), torch.full((20,), 0.2), 4)
    dense_BL = codes.dense()
    if name == "jumprelu":
        expected = (int((dense_BL > 0).sum()) / len(pre_BL) / 7 - 1) ** 2
    else:
        expected = sum(float(v * n) for row in dense_BL for v, n in zip(row, norm_L, strict=True)) / len(
            pre_BL
        )
    assert float(kind.sparsity_loss(codes, l0, norm_L, 7)) == pytest.approx(expected, rel=1e-5)


def test_topk_keeps_the_k_largest_positive():
    pre_BL = pre_activations()
    pre_BL[0] = -1
    pre_BL[0, 3] = 2
    dense_BL = topk(PreActivations.of(pre_BL), 5).dense()
    for pre_L, dense_L in zip(pre_BL, dense_BL, strict=True):
        kept = [i for i in pre_L.argsort(descending=True)[:5].tolist() if pre_L[i] > 0]
        assert dense_L.nonzero()[:, 0].tolist() == sorted(kept)
        assert torch.equal(dense_L[kept], pre_L[kept])


def test_batch_topk_keeps_k_per_token_on_average_wherever_they_are_largest():
    pre_BL = pre_activations()
    codes = batch_topk(PreActivations.of(pre_BL), 4)
    dense_BL = codes.dense()
    assert int((dense_BL > 0).sum()) == 4 * len(pre_BL)
    assert len(set((dense_BL > 0).sum(1).tolist())) > 1  # not the same number for each token
    smallest_kept = dense_BL[dense_BL > 0].min()
    assert torch.equal(dense_BL, torch.where(pre_BL >= smallest_kept, pre_BL, 0))
    assert pre_BL[dense_BL == 0].max() < smallest_kept


def test_batch_topk_keeps_no_negative_and_leaves_out_ties_at_the_cut():
    pre_BL = torch.tensor([[3.0, 1.0, -1.0], [2.0, 1.0, -2.0]])
    assert batch_topk(PreActivations.of(pre_BL), 1).dense().tolist() == [[3.0, 0.0, 0.0], [2.0, 0.0, 0.0]]
    pre_BL[0, 0] = 1.0  # three share the second place: one more than would fit
    assert batch_topk(PreActivations.of(pre_BL), 1).dense().tolist() == [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]
    assert batch_topk(PreActivations.of(pre_BL), 3).dense().tolist() == [[1.0, 1.0, 0.0], [2.0, 1.0, 0.0]]
    assert batch_topk(PreActivations.of(-pre_BL.abs()), 2).dense().tolist() == [[0.0] * 3] * 2


def test_above_threshold_keeps_no_negative_even_under_a_negative_threshold():
    pre_BL = torch.tensor([[-0.5, 0.5, 2.0]])
    codes = above_threshold(PreActivations.of(pre_BL), torch.tensor([-1.0, -1.0, 3.0]), 1)
    assert codes.dense().tolist() == [[0.0, 0.5, 0.0]]


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.integers(0, 70))
def test_largest_but_is_the_sorted_value(values: list[float], kept: int):
    expected = sorted(values, reverse=True)[kept] if kept < len(values) else 0.0
    assert float(largest_but(torch.tensor(values), kept)) == expected


def test_it_is_what_kthvalue_finds():
    pre_N = pre_activations(257, 33).flatten()
    assert torch.equal(largest_but(pre_N, 7 * 257), pre_N.kthvalue(len(pre_N) - 7 * 257).values)


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk"])
def test_gradient_reaches_exactly_the_active_pre_activations(architecture: str):
    crosscoder = small_crosscoder(architecture)
    pre_BL = crosscoder.pre_activations(activations()).detach().requires_grad_()
    pre = PreActivations.of(pre_BL)
    codes, active = crosscoder.nonlinearity.encode_for_training(pre, crosscoder.threshold, 4)
    codes.values.square().sum().backward()
    assert torch.equal(pre_BL.grad != 0, codes.dense() > 0)
    assert float(active) == pytest.approx(int((codes.values > 0).sum()) / len(pre_BL))


def test_jumprelu_gradients_are_those_of_the_paper():
    """Rajamanoharan et al. 2024; within the kernel the pre-activation stands for the threshold."""
    pre_BL = pre_activations(400, 3).requires_grad_()
    threshold_L = torch.tensor([0.05, 0.3, 1.0], requires_grad=True)
    weight_BL = pre_activations(400, 3, seed=1)
    codes, active_B = jumprelu(PreActivations.of(pre_BL), threshold_L, 2)
    assert torch.equal(codes.dense(), torch.where(pre_BL > threshold_L, pre_BL, 0))
    assert torch.equal(active_B, (pre_BL > threshold_L).sum(1).float())
    (codes.dense() * weight_BL).sum().backward()
    assert torch.equal(pre_BL.grad, torch.where(pre_BL > threshold_L, weight_BL, 0))
    near_BL = (pre_BL - threshold_L).abs() < 0.025
    assert (near_BL & (pre_BL < threshold_L)).any()
    expected_L = -(weight_BL * pre_BL * near_BL).sum(0) / 0.05
    torch.testing.assert_close(threshold_L.grad, expected_L.detach())
    threshold_L.grad = None
    jumprelu(PreActivations.of(pre_BL), threshold_L, 2)[1].sum().backward()
    torch.testing.assert_close(threshold_L.grad, -near_BL.sum(0) / 0.05)

"""The largest pre-activations, found through bounds, are those that sorting finds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xtalk.crosscoder.pre_activations import (
    ActiveRows,
    PreActivations,
    _bound_of_batch,
    _bound_of_tokens,
)


def drawn(B: int, L: int, seed: int, levels: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of both signs, many of them equal where there are few levels."""
    pre_BL = torch.randn(B, L, generator=torch.Generator().manual_seed(seed))
    return ((pre_BL * levels).round() / levels).to(dtype)


@given(
    st.integers(1, 7),
    st.integers(1, 150),
    st.integers(1, 9),
    st.integers(0, 99),
    st.sampled_from([1, 4, 1000]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_the_largest_are_among_those_found(
    B: int, L: int, k: int, seed: int, levels: int, dtype: torch.dtype
):
    k, pre_BL = min(k, L), drawn(B, L, seed, levels, dtype)
    for of_batch in (False, True):
        slots = PreActivations.of(pre_BL).largest(k, of_batch=of_batch)
        latents_BC, used_BC, values_BC = slots.latents_BC, slots.used_BC, slots.values_BC
        assert torch.equal(values_BC, pre_BL.gather(1, latents_BC) * used_BC)
        found_BL = torch.zeros(B, L, dtype=torch.bool)
        for b, c in used_BC.nonzero().tolist():
            assert not found_BL[b, latents_BC[b, c]]
            found_BL[b, latents_BC[b, c]] = True
        if of_batch:
            least_B1 = pre_BL.flatten().sort(descending=True).values[k * B - 1].expand(B, 1)
        else:
            least_B1 = pre_BL.sort(dim=1, descending=True).values[:, k - 1 : k]
        assert found_BL[(pre_BL >= least_B1) & (pre_BL > 0)].all()
        assert not found_BL[pre_BL <= 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_others_are_found(dtype: torch.dtype):
    pre_BL = drawn(300, 4096, 0, 1000, dtype)
    for of_batch in (False, True):
        slots = PreActivations.of(pre_BL).largest(32, of_batch=of_batch)
        assert 32 <= slots.used_BC.sum() / len(pre_BL) < 50


def test_bounds_are_near_and_never_above():
    pre_BL = drawn(50, 900, 0, 1000, torch.float32)
    exact_B = pre_BL.topk(20, dim=1).values[:, -1]
    bound_B = _bound_of_tokens(pre_BL, 20)
    assert (bound_B <= exact_B).all() and (exact_B - bound_B).max() < 0.5
    exact = pre_BL.flatten().topk(20 * 50).values[-1]
    assert (_bound_of_batch(pre_BL, 20) <= exact).all() and exact - _bound_of_batch(pre_BL, 20)[0] < 0.2


def test_rough_ones_leave_room_for_rounding():
    generator = torch.Generator().manual_seed(0)
    x_BX, rows_LX = torch.randn(40, 30, generator=generator), torch.randn(500, 30, generator=generator)
    rows = ActiveRows(x_BX, rows_LX, torch.randn(500, generator=generator))
    pre_BL = rows.all()
    with torch.autocast("cpu", torch.bfloat16):
        rough = PreActivations.from_rows(rows)
    assert rough.rough and not PreActivations.from_rows(rows).rough
    for of_batch in (False, True):
        slots = rough.largest(10, of_batch=of_batch)
        torch.testing.assert_close(slots.values_BC, pre_BL.gather(1, slots.latents_BC) * slots.used_BC)
        found_BL = torch.zeros(pre_BL.shape).scatter_add(1, slots.latents_BC, slots.used_BC.float()) > 0
        if of_batch:
            assert found_BL[pre_BL >= pre_BL.flatten().topk(400).values[-1]].all()
        else:
            assert found_BL[pre_BL >= pre_BL.topk(10, dim=1).values[:, -1:]].all()


@pytest.mark.parametrize("room", [1, 1000])
def test_those_that_reach_their_latents_bound(room: int):
    pre_BL, bound_L = drawn(30, 70, 2, 10, torch.float32), torch.linspace(-1, 2, 70)
    slots = PreActivations.of(pre_BL).reaching(bound_L, room)
    found_BL = torch.zeros(pre_BL.shape).scatter_add(1, slots.latents_BC, slots.used_BC.float())
    assert torch.equal(found_BL > 0, (pre_BL >= bound_L) & (pre_BL > 0))
    assert found_BL.max() == 1

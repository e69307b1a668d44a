import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xtalk.codes import Codes, codes_where, of_like_width


def by_hand(active_BL, dense_BL):
    return [
        [(latent, float(dense_BL[b, latent])) for latent in range(dense_BL.shape[1]) if active_BL[b, latent]]
        for b in range(len(dense_BL))
    ]


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_codes_where(density):
    generator = torch.Generator().manual_seed(0)
    dense_BL = torch.rand(6, 11, generator=generator) + 0.1
    active_BL = torch.rand(6, 11, generator=generator) < density
    codes = codes_where(active_BL, dense_BL)
    expected = by_hand(active_BL, dense_BL)
    assert codes.latents.shape[1] == max(1, *map(len, expected))
    for b, row in enumerate(expected):
        used = len(row)
        found = list(zip(codes.latents[b, :used].tolist(), codes.values[b, :used].tolist(), strict=True))
        assert found == row
        assert not codes.values[b, used:].any()
    assert torch.equal(codes.dense(), dense_BL * active_BL)
    assert codes.n_latents == 11


def test_gradient_reaches_the_active_entries_alone():
    dense_BL = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    active_BL = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    weight_BL = torch.arange(15.0).view(3, 5) + 1
    (codes_where(active_BL, dense_BL).dense() * weight_BL).sum().backward()
    assert torch.equal(dense_BL.grad, weight_BL * active_BL)


def test_padding_adds_nothing_to_the_dense_codes():
    codes = Codes(torch.tensor([[3, 0, 3]]), torch.tensor([[2.0, 1.0, 0.0]]), 5)
    assert codes.dense().tolist() == [[1.0, 0.0, 0.0, 2.0, 0.0]]


def test_slice_and_detach():
    values = torch.arange(1.0, 7.0).view(3, 2).requires_grad_()
    codes = Codes(torch.tensor([[0, 1], [2, 3], [1, 2]]), values, 4)
    part = codes.slice(1, 3)
    assert part.latents.tolist() == [[2, 3], [1, 2]]
    assert part.values.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert part.n_latents == 4
    assert part.values.requires_grad
    assert not codes.detach().values.requires_grad


def test_used_slots_end_with_the_last_that_is_no_padding():
    values = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    assert Codes(torch.arange(3).repeat(4, 1), values, 3).used.tolist() == [2, 0, 2, 3]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 200))
def test_groups_of_like_width_are_all_groups_and_bounded(used: list[int], elements: int):
    used_G, seen = torch.tensor(used, dtype=torch.long), []
    for g, k in of_like_width(used_G, elements):
        assert k == max(1, int(used_G[g].max()))
        assert len(g) == 1 or len(g) * k * k <= elements
        seen += g.tolist()
    assert sorted(seen) == list(range(len(used)))
    assert used_G[seen].tolist() == sorted(used, reverse=True)

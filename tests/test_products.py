"""Products of codes with rows: loops and gathers against dense matrices, in value and gradient."""

import pytest
import torch

from xtalk import products
from xtalk.codes import Codes
from xtalk.errors import XtalkError
from xtalk.products import affine_dots, codes_times_rows, dots

B, K, L, X = 23, 6, 41, 19


@pytest.fixture(params=["loops", "gathers"])
def _way(request, monkeypatch):
    """The loops of CPUs, and the tensor functions of other devices."""
    if request.param == "gathers":
        monkeypatch.setattr(products, "_looped", lambda rows: False)
        monkeypatch.setattr(products, "_CHUNK_ELEMENTS", 5 * K * X)


def drawn(dtype: torch.dtype) -> tuple[Codes, torch.Tensor, torch.Tensor]:
    """Codes with padding, zeros among the others and a latent that no token has; rows; and activations."""
    generator = torch.Generator().manual_seed(0)
    latents_BK = torch.rand(B, L - 1, generator=generator).topk(K, dim=1).indices
    values_BK = torch.rand(B, K, generator=generator, dtype=dtype)
    values_BK[3, 2] = values_BK[7, 0] = 0
    for b in (1, 5, 6):
        latents_BK[b, b % K :] = values_BK[b, b % K :] = 0
    rows_LX, x_BX = (torch.randn(n, X, generator=generator, dtype=dtype) for n in (L, B))
    return Codes(latents_BK, values_BK.requires_grad_(), L), rows_LX.requires_grad_(), x_BX.requires_grad_()


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_times_rows(dtype: torch.dtype):
    codes, rows_LX, x_BX = drawn(dtype)
    found = codes_times_rows(codes, rows_LX)
    expected = codes.dense() @ rows_LX
    torch.testing.assert_close(found, expected)
    to_values, to_rows = torch.autograd.grad((found * x_BX).sum(), [codes.values, rows_LX])
    wanted_values, wanted_rows = torch.autograd.grad((expected * x_BX).sum(), [codes.values, rows_LX])
    padding_BK = (codes.values == 0) & (codes.latents == 0)
    padding_BK[:, 0] = False
    torch.testing.assert_close(to_values, wanted_values * ~padding_BK)
    torch.testing.assert_close(to_rows, wanted_rows)
    assert not to_rows[L - 1].any()


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dots(dtype: torch.dtype):
    codes, rows_LX, x_BX = drawn(dtype)
    bias_L, used_BK = torch.linspace(-1, 1, L, dtype=dtype, requires_grad=True), codes.values != 0
    expected = ((x_BX @ rows_LX.T + bias_L).gather(1, codes.latents)) * used_BK
    alone = dots(x_BX, rows_LX, codes.latents, used_BK)
    assert not alone.requires_grad
    torch.testing.assert_close(alone + bias_L[codes.latents] * used_BK, expected)
    found = affine_dots(expected.detach(), x_BX, rows_LX, bias_L, codes.latents, used_BK)
    assert torch.equal(found, expected)
    weight_BK = torch.randn(B, K, generator=torch.Generator().manual_seed(1), dtype=dtype)
    gradients = [
        torch.autograd.grad((y * weight_BK).sum(), [x_BX, rows_LX, bias_L]) for y in (found, expected)
    ]
    for gradient, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_bytes_do_not_depend_on_the_number_of_threads():
    codes, rows_LX, x_BX = drawn(torch.float32)
    codes = Codes(codes.latents.repeat(20, 1), codes.values.detach().repeat(20, 1).requires_grad_(), L)
    x_BX, results, threads = x_BX.detach().repeat(20, 1), [], torch.get_num_threads()
    for number in (1, 3):
        torch.set_num_threads(number)
        sums_BX = codes_times_rows(codes, rows_LX)
        used_BK = codes.values != 0
        dots_BK = dots(x_BX, rows_LX, codes.latents, used_BK)
        affine_BK = affine_dots(dots_BK, x_BX, rows_LX, torch.zeros(L), codes.latents, used_BK)
        loss = (sums_BX * x_BX).sum() + affine_BK.square().sum()
        results.append([sums_BX, dots_BK, *torch.autograd.grad(loss, [codes.values, rows_LX])])
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_latents_out_of_range_are_refused():
    codes = Codes(torch.tensor([[0, L]]), torch.ones(1, 2), L)
    with pytest.raises(XtalkError, match=f"latents from 0 to {L}; expected 0 to {L - 1}"):
        codes_times_rows(codes, torch.ones(L, X))


def test_codes_without_tokens_or_slots():
    rows_LX = torch.ones(L, X)
    assert codes_times_rows(
        Codes(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2), L), rows_LX
    ).shape == (0, X)
    none = torch.zeros(3, 0, dtype=torch.int64)
    assert not codes_times_rows(Codes(none, torch.zeros(3, 0), L), rows_LX).any()

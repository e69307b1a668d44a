import pytest
import torch
from transformers.activations import ACT2FN

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import GELU, GELU_TANH, RELU, SILU, activation_function

SMOOTH = [GELU, GELU_TANH, SILU]
HF_NAMES = ["relu", "gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "swish"]
GRID = torch.linspace(-12, 12, 240_001, dtype=torch.float64)  # step 1e-4, and 0 itself


def derivatives(phi):
    h = GRID.clone().requires_grad_()
    first = torch.autograd.grad(phi(h).sum(), h, create_graph=True)[0]
    if not first.requires_grad:  # piecewise linear
        return first, None
    return first.detach(), torch.autograd.grad(first.sum(), h)[0]


@pytest.mark.parametrize("phi", [RELU, *SMOOTH], ids=lambda phi: phi.name)
def test_slopes_stay_within_the_claimed_range_and_fill_it(phi):
    slope, _ = derivatives(phi)
    assert phi.slope_min <= slope.min() <= phi.slope_min + 1e-6
    assert phi.slope_max - 1e-6 <= slope.max() <= phi.slope_max
    assert phi.lipschitz == max(abs(phi.slope_min), phi.slope_max)


@pytest.mark.parametrize("phi", SMOOTH, ids=lambda phi: phi.name)
def test_curvature_stays_within_the_claimed_bound_and_reaches_it(phi):
    _, curvature = derivatives(phi)
    assert phi.curvature - 1e-6 <= curvature.abs().max() <= phi.curvature


def test_relu_has_a_kink():
    assert RELU.curvature == float("inf")


@pytest.mark.parametrize("name", HF_NAMES)
def test_it_is_the_function_that_hugging_face_means(name):
    ours, theirs = activation_function(name)(GRID), ACT2FN[name](GRID)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_an_unknown_activation_function_is_refused_by_name():
    with pytest.raises(XtalkError, match="'quick_gelu'; supported are relu, gelu"):
        activation_function("quick_gelu")

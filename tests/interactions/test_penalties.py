from functools import cache

import pytest
import torch

from xtalk.errors import XtalkError
from xtalk.interactions import sum_minus_max
from xtalk.interactions.penalties import PENALTIES, MlpTarget, keep, penalty
from xtalk.models.activation_functions import GELU
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import ACTIVATIONS, B, D, contributions, random_case, random_mlp

every_mlp = pytest.mark.parametrize("gated", [False, True])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda phi: phi.name)
every_penalty = pytest.mark.parametrize("name", PENALTIES)
VARIANCE = 2.5


def true_output(dtype=torch.float64):
    return torch.randn(B, D, generator=torch.Generator().manual_seed(5)).to(dtype)


def differentiable(case):
    learned = {"decoder_LD", "bias_D", "values_BK"}
    return case._replace(**{name: getattr(case, name).clone().requires_grad_() for name in learned})


def gradients(value, case):
    """With respect to decoder, bias and code values; zeros where the value does not depend on one."""
    inputs = [case.decoder_LD, case.bias_D, case.values_BK]
    found = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


@cache
def reference(activation, gated):
    case = differentiable(random_case(activation, gated))
    values = loops.penalties(case, true_output(), VARIANCE)
    return {name: (value.detach(), gradients(value, case)) for name, value in values.items()}


@every_penalty
@every_mlp
@every_activation
def test_value_and_gradient(name, activation, gated):
    case = differentiable(random_case(activation, gated))
    value = penalty(name)(contributions(case), MlpTarget(true_output(), VARIANCE))
    expected_value, expected_gradients = reference(activation, gated)[name]
    torch.testing.assert_close(value.detach(), expected_value)
    for found, expected in zip(gradients(value, case), expected_gradients, strict=True):
        torch.testing.assert_close(found, expected)
    assert bool(expected_gradients[0].any()) and bool(expected_gradients[2].any())


@every_penalty
@every_mlp
def test_gradients_do_not_depend_on_what_was_asked_before(name, gated):
    """Penalties share contributions, and what one computes must reach the others with its graph."""
    target = MlpTarget(true_output(), VARIANCE)
    for before in PENALTIES:
        case = differentiable(random_case(GELU, gated))
        made = contributions(case)
        penalty(before)(made, target)
        found = gradients(penalty(name)(made, target), case)
        for one, expected in zip(found, reference(GELU, gated)[name][1], strict=True):
            torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("name", ["sum_minus_max", "out_norm"])
@every_mlp
def test_tensor_formulation_for_other_devices(name, gated, monkeypatch):
    monkeypatch.setattr(sum_minus_max.kernels, "others", sum_minus_max._others_by_tensors)
    monkeypatch.setattr(sum_minus_max.kernels, "others_gradient", sum_minus_max._gradient_by_tensors)
    case = differentiable(random_case(GELU, gated))
    value = penalty(name)(contributions(case), MlpTarget(true_output(), VARIANCE))
    expected_value, expected_gradients = reference(GELU, gated)[name]
    torch.testing.assert_close(value.detach(), expected_value)
    for found, expected in zip(gradients(value, case), expected_gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_threads_share_tokens_and_neurons(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    mlp = random_mlp(GELU, False, generator, n=203)
    case = random_case(GELU, False)._replace(mlp=mlp)
    case = case._replace(latents_BK=case.latents_BK.repeat(50, 1), values_BK=case.values_BK.repeat(50, 1))

    def found():
        leaf = differentiable(case)
        value = penalty("out_norm")(contributions(leaf), MlpTarget(true_output(), VARIANCE))
        return value.detach(), *gradients(value, leaf)

    alone = found()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for expected, shared in zip(alone, found(), strict=True):
        torch.testing.assert_close(shared, expected)


@every_penalty
@every_mlp
def test_float32(name, gated):
    case = differentiable(random_case(ACTIVATIONS[1], gated, dtype=torch.float32))
    target = MlpTarget(true_output(torch.float32), VARIANCE)
    value = penalty(name)(contributions(case), target)
    double = differentiable(
        case._replace(
            decoder_LD=case.decoder_LD.detach().double(),
            bias_D=case.bias_D.detach().double(),
            values_BK=case.values_BK.detach().double(),
            mlp=case.mlp.to(dtype=torch.float64),
        )
    )
    expected = penalty(name)(contributions(double), MlpTarget(true_output(), VARIANCE))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients(value, case), gradients(expected, double), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


@every_mlp
def test_keeping_all_is_the_full_sum(gated):
    mlp, target = contributions(random_case(ACTIVATIONS[2], gated)), MlpTarget(true_output(), VARIANCE)
    torch.testing.assert_close(keep(99)(mlp, target), penalty("full_sum")(mlp, target))


@every_mlp
def test_a_perfect_reconstruction_costs_nothing(gated):
    mlp = contributions(random_case(ACTIVATIONS[3], gated))
    target = MlpTarget(mlp.output(mlp.totals), VARIANCE)
    assert float(penalty("full_sum")(mlp, target)) == 0


@every_mlp
def test_relative_does_not_reward_shrinking(gated):
    """sum_minus_max falls with the contributions' size, relative does not (ordinary MLPs)."""
    case = random_case(ACTIVATIONS[0], gated=False)
    shrunk = case._replace(values_BK=case.values_BK / 10)
    target = MlpTarget(true_output(), VARIANCE)

    def both(name):
        return [float(penalty(name)(contributions(c), target)) for c in (case, shrunk)]

    large, small = both("sum_minus_max")
    assert small == pytest.approx(large / 10)
    large, small = both("relative")
    assert small == pytest.approx(large)


def test_relative_has_a_finite_gradient_where_nothing_contributes():
    case = random_case(ACTIVATIONS[0], gated=False)
    case.values_BK.zero_()
    case = differentiable(case)
    value = penalty("relative")(contributions(case), MlpTarget(true_output(), VARIANCE))
    assert value.item() == 0
    assert all(bool(g.isfinite().all()) for g in gradients(value, case))


def test_an_unknown_penalty_is_refused_by_name():
    with pytest.raises(XtalkError, match="'keep_3'; expected one of sum_minus_max"):
        penalty("keep_3")

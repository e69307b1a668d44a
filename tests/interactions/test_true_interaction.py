import pytest
import torch

from xtalk.errors import XtalkError
from xtalk.interactions.measures import sound_bound
from xtalk.interactions.true_interaction import dominant_residual, mixed_difference, tightness
from xtalk.models.activation_functions import RELU
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import ACTIVATIONS, B, K, contributions, random_case

every_mlp = pytest.mark.parametrize("gated", [False, True])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda phi: phi.name)
PAIRS = [(b, i, j) for b in (0, 1) for i in range(K) for j in range(K) if i != j]


@every_mlp
@every_activation
def test_mixed_difference(activation, gated):
    case = random_case(activation, gated)
    found_QD = mixed_difference(contributions(case), *torch.tensor(PAIRS).unbind(1))
    for (b, i, j), D_ij in zip(PAIRS, found_QD, strict=True):
        torch.testing.assert_close(D_ij, loops.mixed_difference(case, b, i, j))
        if 0 in (case.values_BK[b, i], case.values_BK[b, j]):
            assert not D_ij.any()  # nothing interacts with a latent that is not active


def test_contributions_inside_an_active_neuron_do_not_interact():
    case = random_case(RELU, gated=False)
    active = case._replace(mlp=RELU_ALWAYS_ON(case.mlp))
    found_QD = mixed_difference(contributions(active), *torch.tensor(PAIRS).unbind(1))
    torch.testing.assert_close(found_QD, torch.zeros_like(found_QD), rtol=0, atol=1e-10)


def RELU_ALWAYS_ON(mlp):
    return type(mlp)(mlp.W_in, mlp.b_in + 100, mlp.W_out, mlp.b_out, mlp.activation)


def test_a_slot_with_itself_is_no_pair():
    pairs = torch.tensor([[0, 1, 2], [1, 3, 3]]).unbind(1)
    with pytest.raises(XtalkError, match="one slot twice"):
        mixed_difference(contributions(random_case(RELU, gated=False)), *pairs)


@every_mlp
@every_activation
def test_residual_and_tightness(activation, gated):
    case = random_case(activation, gated)
    mlp = contributions(case)
    residual_BD = dominant_residual(mlp)
    for b in range(B):
        full_D, dominant_D = (loops.output(case, b, keep(case, b)) for keep in (all_slots, dominant_slot))
        torch.testing.assert_close(residual_BD[b], full_D - dominant_D)
    expected = sound_bound(mlp) / residual_BD.norm(dim=1)
    expected[2] = 1.0  # no active latent: nothing to bound
    torch.testing.assert_close(tightness(mlp), expected)
    assert bool((tightness(mlp) >= 1 - 1e-9).all())


def all_slots(case, b):
    return loops.keep_all(case)


def dominant_slot(case, b):
    return loops.keep(case, 1)


def test_tightness_where_only_the_bound_is_positive():
    """All neurons are off with and without the other latents: the residual is 0, the bound is not."""
    case = random_case(RELU, gated=False)
    mlp = case.mlp
    off = case._replace(mlp=type(mlp)(mlp.W_in, mlp.b_in - 100, mlp.W_out, mlp.b_out, RELU))
    assert tightness(contributions(off)).tolist() == [torch.inf, torch.inf, 1.0, torch.inf]

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xtalk.codes import Codes
from xtalk.errors import XtalkError
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import dominant_share, few_hot_shares, interaction, sound_bound
from xtalk.interactions.penalties import MlpTarget, sum_minus_max
from xtalk.interactions.true_interaction import dominant_residual, tightness
from xtalk.models.activation_functions import GELU, GELU_TANH, RELU, SILU
from xtalk.models.mlp import MlpWeights
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import ACTIVATIONS, B, K, N, contributions, random_case, random_mlp

every_mlp = pytest.mark.parametrize("gated", [False, True])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda phi: phi.name)
EMPTY = 2  # the token of `random_case` that has no active latent


@every_mlp
@every_activation
def test_shares(activation, gated):
    case = random_case(activation, gated)
    shares = few_hot_shares(contributions(case), (4, 1, 2, K, K + 3))
    assert list(shares) == [4, 1, 2, K, K + 3]
    for m, share_BN in shares.items():
        expected = [[float(loops.share(case, b, k, m)) for k in range(N)] for b in range(B)]
        torch.testing.assert_close(share_BN, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(dominant_share(contributions(case)), shares[1])


@every_mlp
@every_activation
def test_interaction(activation, gated):
    case = random_case(activation, gated)
    T_B = interaction(contributions(case))
    expected = [loops.interaction(case, b) for b in range(B)]
    torch.testing.assert_close(T_B, torch.tensor(expected, dtype=torch.float64))
    bound_B = sound_bound(contributions(case))
    torch.testing.assert_close(bound_B, T_B if gated else T_B * activation.lipschitz)


@every_mlp
def test_a_token_without_active_latents_has_no_interaction(gated):
    mlp = contributions(random_case(GELU, gated))
    assert bool((dominant_share(mlp)[EMPTY] == 1).all())
    assert all(bool((share_BN[EMPTY] == 1).all()) for share_BN in few_hot_shares(mlp).values())
    assert float(interaction(mlp)[EMPTY]) == 0
    assert float(sound_bound(mlp)[EMPTY]) == 0


def test_one_active_latent_dominates_alone():
    case = random_case(SILU, False, dtype=torch.float32)
    case.values_BK[:, 0] *= 100  # rounding of the contributions is not lost in the base
    case.values_BK[:, 1:] = 0
    mlp = contributions(case)
    assert bool((dominant_share(mlp) == 1).all())
    assert interaction(mlp).tolist() == [0.0] * B
    assert tightness(mlp).tolist() == [1.0] * B


def test_interaction_by_hand():
    """p = (3, -1) at a neuron with ||W_out|| 5, p = (1, -2) at one with 13: T = 5 * 1 + 13 * 1."""
    mlp = MlpWeights(
        torch.tensor([[3.0, 1.0], [-1.0, -2.0]]),
        torch.zeros(2),
        torch.tensor([[3.0, 4.0], [5.0, 12.0]]),
        torch.zeros(2),
        GELU,
    )
    codes = Codes(torch.tensor([[0, 1]]), torch.ones(1, 2), 2)
    found = MlpContributions(torch.eye(2), torch.zeros(2), codes, mlp)
    assert interaction(found).tolist() == [18.0]
    torch.testing.assert_close(dominant_share(found), torch.tensor([[0.75, 2 / 3]]))


def test_fewer_than_one_hot_is_refused():
    with pytest.raises(XtalkError, match="expected 1 or more"):
        few_hot_shares(contributions(random_case(RELU, False)), (1, 0))


drawn = st.builds(
    lambda seed, slots, size, activation, gated: drawn_contributions(seed, slots, size, activation, gated),
    seed=st.integers(0, 2**32 - 1),
    slots=st.integers(1, 6),
    size=st.floats(-4, 3).map(lambda e: 10**e),
    activation=st.sampled_from(ACTIVATIONS),
    gated=st.booleans(),
)


def drawn_contributions(seed, slots, size, activation, gated) -> MlpContributions:
    generator = torch.Generator().manual_seed(seed)
    mlp = random_mlp(activation, gated, generator, d=3, n=4)
    latents = torch.stack([torch.randperm(8, generator=generator)[:slots] for _ in range(5)])
    values = size * torch.rand(5, slots, generator=generator).double()
    values *= torch.rand(5, slots, generator=generator) < 0.8
    decoder, bias = torch.randn(9, 3, generator=generator).double().split([8, 1])
    return MlpContributions(decoder, bias[0], Codes(latents, values, 8), mlp)


@given(drawn)
def test_the_bound_is_sound(mlp):
    bound_B, true_B = sound_bound(mlp), dominant_residual(mlp).norm(dim=1)
    assert bool((true_B <= bound_B * (1 + 1e-9) + 1e-9).all())


@given(drawn)
def test_shares_rise_to_one(mlp):
    slots = mlp.codes.values.shape[1]
    shares = list(few_hot_shares(mlp, range(1, slots + 3)).values())
    assert bool((shares[0] >= 1 / slots - 1e-9).all())
    assert all(bool((fewer <= more + 1e-9).all()) for fewer, more in pairwise(shares))
    for share_BN in shares[slots - 1 :]:
        torch.testing.assert_close(share_BN, torch.ones_like(share_BN))
    assert all(bool((share_BN <= 1).all()) for share_BN in shares)


@given(drawn)
def test_sum_minus_max_is_never_negative(mlp):
    target = MlpTarget(torch.zeros(5, 3), 1.0)
    assert float(sum_minus_max(mlp, target)) >= -1e-9 * float(mlp.value.total_abs().mean())
    assert bool((interaction(mlp) >= 0).all())


def steepest(activation) -> float:
    """Where |phi'| is Lip(phi)."""
    h = torch.linspace(-4, 4, 800_001, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(activation(h).sum(), h)[0].abs()
    return float(h.detach()[slope.argmax()]) if activation is not RELU else 2.0


@every_mlp
@every_activation
def test_the_bound_is_reached(activation, gated):
    """All neurons write in one direction, sit where phi is steepest, and small contributions push one way."""
    eps = 1e-3
    one, zero = torch.ones(1).double(), torch.zeros(1).double()
    W, W_out = torch.ones(1, 2).double(), torch.tensor([[1.0], [3.0]]).double()
    h = torch.full((2,), steepest(activation)).double() - 3 * eps
    gate = {"W_gate": W, "b_gate": h} if gated else {}
    value_bias = torch.full((2,), 0.7).double() if gated else h
    mlp = MlpWeights(W, value_bias, W_out, zero, activation, **gate)
    codes = Codes(torch.tensor([[0, 1, 2]]), eps * torch.tensor([[1.0, 3.0, 2.0]]).double(), 3)
    found = MlpContributions(one.expand(3, 1), zero, codes, mlp)
    assert 1 - 1e-6 <= float(tightness(found)) < 1.01


@pytest.mark.parametrize("activation", [GELU, GELU_TANH, SILU], ids=lambda phi: phi.name)
def test_without_the_lipschitz_constant_the_bound_would_fail(activation):
    """At the steepest point T alone, as if phi were 1-Lipschitz, is less than the true change."""
    one, zero = torch.ones(1, 1).double(), torch.zeros(1).double()
    mlp = MlpWeights(one, zero + steepest(activation), one, zero, activation)
    codes = Codes(torch.tensor([[0, 1]]), torch.tensor([[2e-3, 1e-3]]).double(), 2)
    found = MlpContributions(one.expand(2, 1), zero, codes, mlp)
    true = float(dominant_residual(found).norm())
    assert float(interaction(found)) < true <= float(sound_bound(found))
    assert math.isclose(true / float(interaction(found)), activation.lipschitz, rel_tol=1e-2)

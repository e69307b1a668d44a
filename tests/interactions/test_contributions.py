from functools import cache

import pytest
import torch

import xtalk.interactions.contributions as module
from xtalk.codes import Codes
from xtalk.errors import XtalkError
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import ACTIVATIONS, B, K, N, contributions, random_case, tied_case

every_mlp = pytest.mark.parametrize("gated", [False, True])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda phi: phi.name)
every_case = pytest.mark.parametrize("make", [random_case, tied_case])


def table(function) -> torch.Tensor:
    return torch.tensor([[float(function(b, k)) for k in range(N)] for b in range(B)], dtype=torch.float64)


@cache
def all_ranks(make, activation, gated):
    case = make(activation, gated)
    ranks_BNK = [[loops.ranking(case, b, k) for k in range(N)] for b in range(B)]
    return torch.tensor(ranks_BNK).transpose(1, 2)


@every_mlp
@every_activation
def test_contributions_bases_and_sums(activation, gated):
    case = random_case(activation, gated)
    mlp = contributions(case)
    assert len(mlp.paths) == len(case.paths) == 1 + gated
    for index, path in enumerate(mlp.paths):
        for slot in range(K):
            expected = table(lambda b, k, i=index, s=slot: loops.contribution(case, i, b, k, s))
            torch.testing.assert_close(path.at(torch.full((B, N), slot)), expected)
        bases = [float(loops.base(case, index, k)) for k in range(N)]
        torch.testing.assert_close(path.base_BN[0], torch.tensor(bases, dtype=torch.float64))
        every = [
            table(lambda b, k, i=index, s=slot: loops.contribution(case, i, b, k, s)) for slot in range(K)
        ]
        torch.testing.assert_close(path.total(), sum(every))
        torch.testing.assert_close(mlp.totals[index], sum(every))
        torch.testing.assert_close(path.total_abs(), sum(p.abs() for p in every))


@every_case
@every_mlp
@every_activation
@pytest.mark.parametrize("m", [1, 2, 4, K, K + 3])
def test_top_slots_and_their_sums(make, activation, gated, m):
    case = make(activation, gated)
    mlp = contributions(case)
    ranks_BKN = all_ranks(make, activation, gated)
    assert torch.equal(mlp.top_slots(m), ranks_BKN[:, :m])
    for index, kept_BN in enumerate(mlp.keep(m)):

        def expected(b, k, index=index):
            return sum(loops.contribution(case, index, b, k, int(i)) for i in ranks_BKN[b, :m, k])

        torch.testing.assert_close(kept_BN, table(expected))


@every_case
@every_mlp
@pytest.mark.parametrize("m", [1, 3, K])
def test_tensor_formulation_for_other_devices(make, gated, m, monkeypatch):
    case = make(ACTIVATIONS[1], gated)
    expected = all_ranks(make, ACTIVATIONS[1], gated)[:, :m]
    for elements in (1 << 26, 3 * K * N, 1):  # one chunk, an uneven last chunk, a chunk per token
        monkeypatch.setattr(module, "_CHUNK_ELEMENTS", elements)
        made = contributions(case)
        assert torch.equal(made._top_slots_chunked(m, made.path_weights()), expected)


@every_mlp
def test_tied_cases_have_ties_among_their_largest(gated):
    case = tied_case(ACTIVATIONS[1], gated)
    tied = sum(
        float(loops.score(case, b, k, first)) == float(loops.score(case, b, k, second)) > 0
        for b in range(B)
        for k in range(N)
        for first, second in [loops.ranking(case, b, k)[:2]]
    )
    assert tied >= 3


@every_mlp
@pytest.mark.parametrize("m", [1, 2])
def test_threads_share_the_tokens(gated, m, monkeypatch):
    case = random_case(ACTIVATIONS[2], gated)
    alone = contributions(case).top_slots(m)
    many = case._replace(
        latents_BK=case.latents_BK.repeat(63, 1)[:-1], values_BK=case.values_BK.repeat(63, 1)[:-1]
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # 251 tokens: shares of 83, 84 and 84
    assert torch.equal(contributions(many).top_slots(m), alone.repeat(63, 1, 1)[:-1])


@every_mlp
def test_float32_agrees_with_float64(gated):
    single = random_case(ACTIVATIONS[1], gated, dtype=torch.float32)
    double = single._replace(
        decoder_LD=single.decoder_LD.double(),
        bias_D=single.bias_D.double(),
        values_BK=single.values_BK.double(),
        mlp=single.mlp.to(dtype=torch.float64),
    )
    assert contributions(single).value.M_LN.dtype == torch.float32
    assert torch.equal(contributions(single).top_slots(K), contributions(double).top_slots(K))


@pytest.mark.parametrize("m", [1, 2])
def test_near_ties_in_float64(m):
    """The second slot is larger than the first rounded to float32, and smaller than it is."""
    one = torch.ones(1, 1).double()
    mlp = module.MlpWeights(one, one[0], one, one[0], ACTIVATIONS[0])
    codes = Codes(torch.tensor([[0, 1]]), torch.tensor([[1 + 2e-12, 1 + 1e-12]], dtype=torch.float64), 2)
    found = module.MlpContributions(one.expand(2, 1), one[0], codes, mlp)
    assert found.top_slots(m).flatten().tolist() == [0, 1][:m]


@every_mlp
@every_activation
def test_output_of_all_contributions_is_the_mlp_at_the_decoded_input(activation, gated):
    case = random_case(activation, gated)
    mlp = contributions(case)
    decoded_BD = case.bias_D + torch.stack(
        [
            sum(case.values_BK[b, i] * case.decoder_LD[case.latents_BK[b, i]] for i in range(K))
            for b in range(B)
        ]
    )
    torch.testing.assert_close(mlp.output(mlp.totals), case.mlp(decoded_BD))
    for m in (1, 2):
        expected = [loops.output(case, b, loops.keep(case, m)) for b in range(B)]
        torch.testing.assert_close(mlp.output(mlp.keep(m)), torch.stack(expected))


@every_mlp
def test_a_decoded_input_that_the_caller_has_is_used_with_its_gradient(gated):
    case = random_case(ACTIVATIONS[1], gated)
    codes = Codes(case.latents_BK, case.values_BK, len(case.decoder_LD))
    decoded_BD = (codes.dense() @ case.decoder_LD).requires_grad_()
    mlp = module.MlpContributions(case.decoder_LD, case.bias_D, codes, case.mlp, decoded_BD)
    for given, own, (W_DN, _) in zip(mlp.totals, contributions(case).totals, case.paths, strict=True):
        torch.testing.assert_close(given, own)
        (gradient_BD,) = torch.autograd.grad(given.sum(), decoded_BD, retain_graph=True)
        torch.testing.assert_close(gradient_BD, W_DN.sum(1).expand_as(gradient_BD))


def test_latents_dominate_their_own_neurons():
    """Latent i points at neuron i alone: it dominates there, and nowhere else does it contribute."""
    eye = torch.eye(4)
    mlp = module.MlpWeights(eye, torch.zeros(4), eye, torch.zeros(4), ACTIVATIONS[0])
    codes = Codes(torch.tensor([[2, 0, 3, 1]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 4)
    found = module.MlpContributions(eye, torch.zeros(4), codes, mlp)
    assert found.dominant_BN.tolist() == [[1, 3, 0, 2]]
    assert found.dominant[0].tolist() == [[2.0, 4.0, 1.0, 3.0]]


def test_codes_of_another_decoder_are_refused():
    case = random_case(ACTIVATIONS[0], False)
    codes = Codes(case.latents_BK, case.values_BK, 12)
    with pytest.raises(XtalkError, match="codes of 12 latents; expected the decoder's 9"):
        module.MlpContributions(case.decoder_LD, case.bias_D, codes, case.mlp)


@pytest.mark.parametrize("latent", [-1, 9])
def test_a_latent_out_of_range_is_refused(latent):
    case = random_case(ACTIVATIONS[0], False)
    case.latents_BK[1, 2] = latent
    with pytest.raises(XtalkError, match="expected 0 to 8"):
        contributions(case).top_slots(1)


def test_fewer_than_one_largest_contribution_is_refused():
    with pytest.raises(XtalkError, match="0 largest"):
        contributions(random_case(ACTIVATIONS[0], False)).keep(0)

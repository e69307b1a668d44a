"""Schemes against loops over tokens, neurons and slots."""

import pytest
import torch

from xtalk.codes import Codes
from xtalk.evaluation.schemes import SCHEMES, scheme_generator
from xtalk.interactions.contributions import MlpContributions
from xtalk.models.activation_functions import GELU_TANH, RELU, SILU
from xtalk.reading.ranked import RankedContributions
from xtalk.reports.data import SCHEMES as REPORTED
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import random_case

KINDS = [(RELU, False), (GELU_TANH, False), (SILU, True)]


def wide_case(activation, gated):
    """More slots than the eight that `RankedContributions` remember."""
    case = random_case(activation, gated)
    generator = torch.Generator().manual_seed(5)
    latents = torch.stack([torch.randperm(11, generator=generator) for _ in range(3)])
    values = 0.2 + torch.rand(3, 11, generator=generator, dtype=torch.float64)
    values[1, ::2] = 0
    decoder = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    return case._replace(decoder_LD=decoder, latents_BK=latents, values_BK=values)


CASES = [make(*kind) for kind in KINDS for make in (random_case, wide_case)]


def ranked(case) -> RankedContributions:
    codes = Codes(case.latents_BK, case.values_BK, len(case.decoder_LD))
    return RankedContributions(case.decoder_LD, case.bias_D, codes, case.mlp)


def kept_slots(scheme: str, case, b: int, k: int) -> list[int]:
    order = loops.ranking(case, b, k)
    if scheme.startswith("keep_") and scheme[5:].isdigit():
        return order[: int(scheme[5:])]
    return {
        "full": order,
        "drop_largest": order[1:],
        "drop_second": order[:1] + order[2:],
        "keep_most_active": [int(case.values_BK[b].argmax())],
    }[scheme]


CHOOSING = [name for name in SCHEMES if "random" not in name and name != "shrink"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", CHOOSING)
def test_schemes_keep_what_loops_keep(scheme, case):
    p = ranked(case)
    expected = [
        loops.output(case, b, lambda b, k: kept_slots(scheme, case, b, k)) for b in range(len(case.values_BK))
    ]
    output_BD = p.output(SCHEMES[scheme](p, torch.Generator()))
    torch.testing.assert_close(output_BD, torch.stack(expected))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_remembering_the_largest_changes_nothing(scheme, case):
    p = ranked(case)
    plain = MlpContributions(case.decoder_LD, case.bias_D, p.codes, case.mlp)
    kept, expected = (SCHEMES[scheme](q, scheme_generator(0, 0, scheme)) for q in (p, plain))
    assert len(kept) == len(p.paths)
    for kept_BN, expected_BN in zip(kept, expected, strict=True):
        torch.testing.assert_close(kept_BN, expected_BN)
    for m in (1, 3, 8, 9):
        assert torch.equal(p.top_slots(m), plain.top_slots(m))


@pytest.mark.parametrize("case", CASES)
def test_shrink_takes_the_mean_dominant_share_of_the_token(case):
    p = ranked(case)
    for path, kept_BN in enumerate(SCHEMES["shrink"](p, torch.Generator())):
        for b in case.tokens:
            share = sum(float(loops.share(case, b, k, 1)) for k in case.neurons) / len(case.neurons)
            for k in case.neurons:
                total = sum(float(loops.contribution(case, path, b, k, i)) for i in case.slots)
                assert float(kept_BN[b, k]) == pytest.approx(share * total, abs=1e-9)


def repeated(case, times: int):
    """Token 0 of a case with one slot padded, `times` over."""
    values = case.values_BK[:1].clone()
    values[0, 1] = 0
    return case._replace(latents_BK=case.latents_BK[:1].repeat(times, 1), values_BK=values.repeat(times, 1))


def test_random_choice_is_uniform_over_active_latents_and_differs_by_neuron():
    case = repeated(random_case(RELU, False), 2000)
    p = ranked(case)
    (kept_BN,) = SCHEMES["keep_random"](p, torch.Generator().manual_seed(0))
    active = [i for i in case.slots if case.values_BK[0, i] > 0]
    counts = torch.zeros(len(case.neurons), len(active))
    for k in case.neurons:
        candidates = torch.stack([loops.contribution(case, 0, 0, k, i) for i in active])
        hit = (kept_BN[:, k, None] - candidates).abs() < 1e-12
        assert (hit.sum(1) == 1).all()
        counts[k] = hit.sum(0)
    assert ((counts - 2000 / len(active)).abs() < 4 * (2000 * 0.25 * 0.75) ** 0.5).all()
    scale_BN = kept_BN / torch.stack([loops.contribution(case, 0, 0, k, active[0]) for k in case.neurons])
    chose_first_BN = (scale_BN - 1).abs() < 1e-12
    assert not (chose_first_BN == chose_first_BN[:, :1]).all()


@pytest.mark.parametrize("case", CASES)
def test_dropping_at_random_leaves_out_what_keeping_at_random_keeps(case):
    p = ranked(case)
    kept, rest = (
        SCHEMES[name](p, torch.Generator().manual_seed(2)) for name in ("keep_random", "drop_random")
    )
    for kept_BN, rest_BN, total_BN in zip(kept, rest, p.totals, strict=True):
        torch.testing.assert_close(kept_BN + rest_BN, total_BN)


def test_generators_are_unlike_for_every_seed_block_and_scheme():
    states = {
        scheme_generator(seed, block, scheme).initial_seed()
        for seed in range(3)
        for block in range(4)
        for scheme in SCHEMES
    }
    assert len(states) == 3 * 4 * len(SCHEMES)


def test_reports_know_every_scheme():
    assert tuple(SCHEMES) == REPORTED

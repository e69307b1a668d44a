"""How training is configured: schedules and refusals."""

from itertools import pairwise

import pytest
import torch

from xtalk.training.config import TrainingConfig


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"steps": 1000, "batch_tokens": 512} | changes)


def test_learning_rate_warms_up_stays_and_decays():
    training = config(lr=2.0, warmup_steps=100, decay=0.25)
    rates = [training.learning_rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[49] == pytest.approx(1.0)
    assert set(rates[99:751]) == {2.0}
    assert rates[875] == pytest.approx(1.0)
    assert rates[999] == pytest.approx(2.0 / 250)
    assert all(later <= earlier for earlier, later in pairwise(rates[750:]))
    assert config(warmup_steps=0).learning_rate(0) == config().lr


def test_penalties_warm_up_linearly():
    training = config(penalty_warmup=0.1)
    factors = [training.penalty_factor(step) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[49] == pytest.approx(0.5)
    assert set(factors[99:]) == {1.0}
    assert config(penalty_warmup=0.0).penalty_factor(0) == 1.0


def test_penalties_that_splice_come_in_later():
    training = config(penalties={"keep_one": 1.0, "keep_one_kl": 1.0}, splice_from=0.4)
    assert [step for step in range(1000) if training.splices(step)] == list(range(400, 1000))
    assert not config(penalties={"keep_one": 1.0}).splices(999)


def test_tokens_needed_reserves_whole_batches_for_calibration():
    assert config().tokens_needed == (1000 + 32) * 512
    assert config(batch_tokens=10_000).tokens_needed == (1000 + 2) * 10_000


def test_zero_penalties_are_dropped():
    assert config(penalties={"keep_one": 2.0, "sum_minus_max": 0.0}).penalties == {"keep_one": 2.0}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"penalties": {"keep_three": 1.0}}, "unknown penalty 'keep_three'; expected one of sum_minus_max"),
        ({"penalties": {"keep_one": -1.0}}, "penalty keep_one has weight -1.0"),
        ({"penalties": {"keep_one": float("nan")}}, "finite"),
        ({"recon_weights": {"resid_mud": 2.0}}, "resid_mid"),
        ({"recon_weights": {"resid_mid": -1.0}}, "greater than or equal to 0"),
        ({"lr": 0.0}, "greater than 0"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"learning_rate": 1e-3}, "Extra inputs"),
    ],
)
def test_wrong_values_are_refused(changes, match: str):
    with pytest.raises(ValueError, match=match):
        config(**changes)


def test_bfloat16_is_decided_by_the_device_unless_given():
    for given in (True, False):
        assert config(bfloat16=given).uses_bfloat16(torch.device("cpu")) is given
    assert config().uses_bfloat16(torch.device("cuda"))
    assert not config().uses_bfloat16(torch.device("mps"))
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities["avx512_bf16"] or capabilities["amx_bf16"]
    assert config().uses_bfloat16(torch.device("cpu")) == fast

"""The metric in which errors of an MLP's output count what they cost the loss."""

from dataclasses import replace

import pytest
import torch
from reference.tiny_models import BLOCKS, D_MODEL, tiny_model, tiny_tokens
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from xtalk.data import ALL, Counted, token_sequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.training.loss_metric import PLAIN, LossMetric, measure_loss_metric

INPUT = Hookpoint(1, "ln2")


def sequences(count: int = 12):
    tokens = torch.cat([tiny_tokens(seed=seed) for seed in range(count)])[:count].numpy().astype("int32")
    return token_sequences(tokens, tokens * 0)


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neo")


@pytest.fixture(scope="module")
def metrics(model):
    texts = sequences()
    return {
        b: R @ R.T
        for b, R in measure_loss_metric(model, texts, texts.tokens.size, range(BLOCKS), seed=0).items()
    }


def outputs_of(model, block):
    tokens = torch.from_numpy(sequences().tokens).long()
    n_BD = model.capture(tokens, (Hookpoint(block, "ln2"),)).flatten(0, 2)
    return model.mlp_weights(block)(n_BD)


def test_factors_go_where_the_model_is(model):
    plain = model.mlp_weights(0)
    with FakeTensorMode():  # tensors that know their device and refuse others, and hold nothing
        W_out, b_out = torch.empty(plain.W_out.shape, device="cuda"), torch.empty(D_MODEL, device="cuda")
        there = replace(plain, W_out=W_out, b_out=b_out)
        assert LossMetric({INPUT: torch.eye(D_MODEL)}).turned(INPUT, there).W_out.device.type == "cuda"


def test_the_mean_output_costs_1_at_every_block(model, metrics):
    assert set(metrics) == set(range(BLOCKS))
    for block, metric_DD in metrics.items():
        deviation_BD = outputs_of(model, block) - outputs_of(model, block).mean(0)
        cost = ((deviation_BD @ metric_DD) * deviation_BD).sum(1).mean()
        assert cost.item() == pytest.approx(1, rel=1e-3)


def test_a_direction_that_the_final_norm_removes_costs_only_its_plain_error(model, metrics):
    last = BLOCKS - 1
    ones_D = torch.ones(D_MODEL)
    output_BD = outputs_of(model, last)
    variance = (output_BD - output_BD.mean(0)).square().sum(1).mean()
    cost = ones_D @ metrics[last] @ ones_D
    assert cost.item() == pytest.approx(PLAIN * D_MODEL / variance.item(), rel=1e-3)


def test_it_ranks_errors_by_the_loss_they_cause(model, metrics):
    """KL after small errors along each eigenvector of the metric, against the metric's own prediction."""
    block, tokens = 1, torch.from_numpy(sequences().tokens).long()
    mid_BSD, n_BSD = model.capture(tokens, (Hookpoint(block, "resid_mid"), Hookpoint(block, "ln2"))).unbind(2)
    output_BSD = model.mlp_weights(block)(n_BSD)
    before = model.continue_from(block, mid_BSD + output_BSD, tokens).log_softmax(-1)
    costs, directions_DD = torch.linalg.eigh(metrics[block])
    kl = []
    for direction_D in directions_DD.T:
        size = 0.02 * output_BSD.norm(dim=-1).mean()
        moved = model.continue_from(block, mid_BSD + output_BSD + size * direction_D, tokens).log_softmax(-1)
        kl.append(F.kl_div(moved, before, log_target=True, reduction="sum"))
    ranks = torch.stack([costs.argsort().argsort(), torch.stack(kl).argsort().argsort()]).float()
    assert torch.corrcoef(ranks)[0, 1] > 0.6


def test_mlps_put_out_in_the_metric_and_the_seed_decides(model):
    texts = sequences()
    factors = measure_loss_metric(model, texts, 64, range(BLOCKS), seed=3)
    again, other = (measure_loss_metric(model, texts, 64, range(BLOCKS), seed=seed) for seed in (3, 4))
    assert all(torch.equal(factors[b], again[b]) for b in factors)
    assert not torch.equal(factors[0], other[0])
    n_BD = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(0))
    turned_BD = LossMetric({INPUT: factors[1]}).turned(INPUT, model.mlp_weights(1))(n_BD)
    torch.testing.assert_close(turned_BD, model.mlp_weights(1)(n_BD) @ factors[1], rtol=1e-4, atol=1e-5)


def test_tokens_that_do_not_count_do_not_matter(model):
    """The mean output of the tokens that count costs 1 at them, which it does not where a sink counts too."""
    texts, sunk = sequences(), tiny_model("gpt_neo")
    sunk.hf.transformer.wpe.weight.data[0] *= 300
    n = texts.tokens.size
    for counted in (ALL, Counted(1)):
        factors = measure_loss_metric(sunk, texts, n, range(BLOCKS), 0, counted)
        tokens = torch.from_numpy(texts.tokens).long()
        n_BSD = sunk.capture(tokens, (Hookpoint(1, "ln2"),))[:, :, 0]
        output_BD = sunk.mlp_weights(1)(n_BSD)[:, 1:].flatten(0, 1)
        deviation_BD = output_BD - output_BD.mean(0)
        cost = ((deviation_BD @ factors[1]).square().sum(1)).mean().item()
        assert (cost == pytest.approx(1, rel=1e-3)) == (counted is not ALL)


def test_an_output_that_does_not_vary_has_the_plain_metric():
    model = tiny_model("llama")
    model.hf.model.layers[1].mlp.down_proj.weight.zero_()
    factors = measure_loss_metric(model, sequences(), 32, range(BLOCKS), seed=0)
    torch.testing.assert_close(factors[1], torch.eye(D_MODEL))
    assert not torch.allclose(factors[0], torch.eye(D_MODEL))


def test_logits_that_are_not_finite_are_refused():
    model = tiny_model("llama")
    model.hf.model.norm.weight[0] = torch.nan
    with pytest.raises(XtalkError, match="logits are not finite"):
        measure_loss_metric(model, sequences(), 32, range(BLOCKS), seed=0)

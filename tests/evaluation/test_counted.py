"""Tokens that do not count are left out of every figure, against leaving them out by hand."""

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out, random_crosscoder
from reference.left_out import figures, read
from reference.tiny_models import tiny_model

from xtalk.data import ALL, Counted
from xtalk.evaluation import evaluate_crosscoder, mean_mlp_outputs, measure_baselines
from xtalk.evaluation.validation import ValidationConfig, validate_interactions
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import next_token_loss

TEXT = held_out(24, 8)
TOKENS = torch.from_numpy(TEXT.tokens).long()


def with_sink(kind: str = "gpt_neo", times: float = 300.0) -> LanguageModel:
    """A tiny model whose first position is blown up, as those of many models are."""
    model = tiny_model(kind)
    model.hf.transformer.wpe.weight.data[0] *= times
    return model


def evaluated(model, crosscoder, counted, micro_batch=5):
    means = mean_mlp_outputs(model, TEXT, 10**6, range(model.n_blocks), counted)
    baselines = measure_baselines(model, TEXT, means, micro_batch, counted)
    factor_P = torch.ones(len(crosscoder.config.hook_names))
    how = {"resamples": 20, "seed": 0, "micro_batch": micro_batch}
    return evaluate_crosscoder(model, crosscoder, factor_P, TEXT, baselines, **how), baselines


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("block", [0, 2])
def test_figures_are_those_with_positions_left_out_by_hand(skip: int, block: int):
    model = with_sink()
    crosscoder = random_crosscoder(model)
    crosscoder.b_enc.data += 4.0  # no token without a latent, of which a share would be 0 / 0
    evaluation, baselines = evaluated(model, crosscoder, Counted(skip))
    n = model.capture(TOKENS, [Hookpoint(block, "ln2")])[:, skip:, 0]
    mean_D = model.mlp_weights(block)(n).flatten(0, 1).double().mean(0).float()
    torch.testing.assert_close(baselines.mean_outputs[block], mean_D, rtol=1e-4, atol=1e-6)

    expected = figures(model, crosscoder, TOKENS, mean_D, block, skip)
    found = evaluation.reconstruction
    assert found.tokens == len(TEXT) * (TEXT.length - skip)
    assert list(found.fvu_by_hookpoint.values()) == pytest.approx(expected["fvu"], rel=1e-4)
    interaction = next(row for row in evaluation.interaction if row.block == block)
    assert interaction.T.value == pytest.approx(expected["T"], rel=1e-4)
    assert interaction.dominant_share.value == pytest.approx(expected["share"], rel=1e-4)
    key = (block, "model", "mean")
    row = next(r for r in evaluation.fidelity if (r.block, r.resid_mid, r.baseline) == key)
    assert row.ablation.value == pytest.approx(expected["ablation"], rel=1e-4)
    for scheme in ("full", "keep_1"):
        assert row.nmse[scheme].value == pytest.approx(expected["nmse"][scheme], rel=1e-4)
        assert row.lost[scheme].value == pytest.approx(expected["lost"][scheme], rel=1e-4)
        assert row.phi[scheme].value == pytest.approx(expected["phi"][scheme], rel=1e-4)
        assert row.weighed[scheme] == pytest.approx(row.phi[scheme])


def test_the_sink_rules_what_it_is_counted_in():
    """A reconstruction that looks good for the sink's sake."""
    model, at = with_sink(), "blocks.0.resid_pre"
    crosscoder = random_crosscoder(model)
    counted, skipped = (evaluated(model, crosscoder, c)[0].reconstruction for c in (ALL, Counted(1)))
    assert 10 * counted.fvu_by_hookpoint[at] < skipped.fvu_by_hookpoint[at]
    assert counted.position_share[at][0] == 0
    assert counted.position_share[at][1] > 0.99 > 0.5 > skipped.position_share[at][1]


def test_tokens_are_left_out_for_what_they_are_wherever_they_stand():
    """A splice at tokens that count alone: those of one id keep the model's own stream."""
    model = with_sink(times=1.0)
    crosscoder = random_crosscoder(model)
    skipped = frozenset(TEXT.tokens[:, 3].tolist())
    counted = Counted(skip_tokens=skipped)
    mask = torch.from_numpy(counted.mask(TEXT.tokens))
    assert 0.2 < mask.float().mean() < 0.9
    evaluation, baselines = evaluated(model, crosscoder, counted)
    x, f, y = read(model, crosscoder, TOKENS)
    p = list(crosscoder.config.hook_names).index("blocks.1.resid_pre")
    logits = model.continue_from(0, torch.where(mask[..., None], y[:, :, p], x[:, :, p]), TOKENS)
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), TOKENS[:, 1:], reduction="none"
    )
    expected = losses[mask[:, :-1]].double().mean().item()
    assert evaluation.reconstruction.spliced["blocks.1.resid_pre"].ce == pytest.approx(expected, rel=1e-5)
    assert evaluation.reconstruction.l0 == pytest.approx((f[mask] > 0).sum(1).double().mean().item())
    own = next_token_loss(model.logits(TOKENS), TOKENS)
    assert baselines.ce == pytest.approx(own[mask[:, :-1]].double().mean().item(), rel=1e-5)


def test_validation_reads_and_intervenes_at_tokens_that_count(monkeypatch):
    config = ValidationConfig(pairs=30, loss_pairs=8, occurrences=6, loss_occurrences=3, resamples=10)
    model, text = with_sink(times=1.0), held_out(60, 9, seed=3)
    crosscoder, seen = random_crosscoder(model), list[int]()
    encode = crosscoder.encode_sparse
    monkeypatch.setattr(crosscoder, "encode_sparse", lambda x: seen.append(len(x)) or encode(x))
    counted = Counted(1, frozenset({int(text.tokens[0, 2])}))
    rows = validate_interactions(model, crosscoder, text, config, seed=0, counted=counted)
    half = len(text) // 2
    assert seen[:2] == [counted.mask(some).sum() for some in (text.tokens[:half], text.tokens[half:])]
    assert max(seen) < half * 8
    everything = validate_interactions(model, crosscoder, text, config, seed=0)
    assert [row.rho for row in everything] != [row.rho for row in rows]


def test_masks_and_tallies():
    tokens = np.array([[5, 6, 7, 6], [6, 6, 8, 9]])
    counted = Counted(1, frozenset({6}))
    assert counted.mask(tokens).tolist() == [[False, False, True, False], [False, False, True, True]]
    tally = counted.tally(tokens)
    assert (tally.tokens, tally.counted, tally.first_positions, tally.skipped_tokens) == (8, 3, 2, 3)
    assert ALL.everything and ALL.mask(tokens).all() and not counted.everything

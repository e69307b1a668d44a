"""Fidelity of rebuilt MLP outputs: where its ends lie, what it depends on, and against a slow twin."""

from functools import cache

import numpy as np
import pytest
import torch
from evaluation.held_out import (
    exact_crosscoder,
    held_out,
    make_crosscoder,
    random_crosscoder,
    silent_crosscoder,
)
from reference.tiny_models import tiny_model

from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import mean_mlp_outputs, measure_baselines
from xtalk.evaluation.fidelity import FidelityMeter
from xtalk.evaluation.schemes import SCHEMES, scheme_generator
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained
from xtalk.statistics.bootstrap import Bootstrap

RESAMPLES = 30
TEXT = held_out()
DOCUMENTS = len(np.unique(TEXT.documents))


def own_mean(model):
    return mean_mlp_outputs(model, held_out(seed=1), 50, range(model.n_blocks))


@torch.no_grad()
def measure(model, crosscoder, means=None, averaged=(1, 2), micro_batch=4, sequences=TEXT):
    baselines = measure_baselines(model, sequences, own_mean(model) if means is None else means)
    explained = Explained(model, crosscoder)
    meter = FidelityMeter(explained, baselines, seed=0)
    for batch in batches(model, sequences, micro_batch):
        meter.add(explained.read(batch, explained.around_mlps(batch)))
    rows = meter.result(Bootstrap(DOCUMENTS, RESAMPLES, seed=0), averaged)
    return {(row.block, row.resid_mid, row.baseline): row for row in rows}, baselines


@cache
def of_random_crosscoder():
    return measure(tiny_model("gpt_neo"), random_crosscoder(tiny_model("gpt_neo")))[0]


@pytest.mark.parametrize("kind", ["gpt_neo", "gpt_neox", "llama", "gemma2", "olmo2", "granite"])
def test_a_perfect_crosscoder_has_fidelity_one_everywhere(kind):
    model = tiny_model(kind)
    rows, baselines = measure(model, exact_crosscoder(model))
    assert {key[0] for key in rows} == {0, 1, 2, "mean", "all", "all_with_0"}
    assert len(rows) == 4 * 2 * 2 + 2
    for row in rows.values():
        assert row.phi["full"] == pytest.approx((1, 1, 1), abs=2e-3)
        assert row.nmse["full"] == pytest.approx((0, 0, 0), abs=1e-6)
        assert row.ce["full"] == pytest.approx(baselines.ce, abs=1e-5)
        assert abs(row.phi["keep_1"].value - 1) > 0.01
        assert row.nmse["keep_1"].value > 0.01


def test_a_mean_output_has_fidelity_zero_and_nmse_one():
    """No latent is active, and the output that all schemes rebuild from the base is the baseline's mean."""
    model = tiny_model("gpt_neo")
    crosscoder = silent_crosscoder(model)
    index = Explained(model, crosscoder).index
    bases = [model.mlp_weights(b)(crosscoder.b_dec[index[Hookpoint(b, "ln2")]].detach()) for b in range(3)]
    rows, _ = measure(model, crosscoder, dict(enumerate(bases)))
    for block in range(3):
        row = rows[block, "model", "mean"]
        for scheme in SCHEMES:
            assert row.phi[scheme] == pytest.approx((0, 0, 0), abs=1e-4)
            assert row.nmse[scheme] == pytest.approx((1, 1, 1), abs=1e-5)


@torch.no_grad()
def with_base_moved(model, crosscoder):
    """The same function of activations, its base moved into a latent that is always active."""
    L = crosscoder.config.d_sae
    moved = make_crosscoder(model, L + 1, crosscoder.config.architecture)
    shift_PD = 0.5 * torch.randn(crosscoder.b_dec.shape, generator=torch.Generator().manual_seed(2))
    moved.W_enc[:, :, :L], moved.W_dec[:L], moved.b_enc[:L] = (
        crosscoder.W_enc,
        crosscoder.W_dec,
        crosscoder.b_enc,
    )
    moved.threshold[:L] = crosscoder.threshold
    moved.b_enc[L], moved.W_dec[L] = 1.0, shift_PD
    moved.b_dec.copy_(crosscoder.b_dec - shift_PD)
    return moved


def test_only_the_papers_baseline_depends_on_the_base_of_the_crosscoder():
    """The defect of Phi_zero: the same reconstruction scores otherwise when its bias is worse."""
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    before = of_random_crosscoder()
    after, _ = measure(model, with_base_moved(model, crosscoder))
    for key, row in before.items():
        full, moved = row.phi["full"].value, after[key].phi["full"].value
        assert row.ce["full"] == pytest.approx(after[key].ce["full"], abs=1e-5)
        if key[2] == "mean":
            assert moved == pytest.approx(full, abs=1e-3)
        else:
            assert abs(moved - full) > 0.02


@torch.no_grad()
def slow_losses(model, mlp_out_mSD, block, sequences, mid_mSD=None):
    """Summed loss by document, token by token."""
    tokens = torch.from_numpy(sequences.tokens).long()
    if mid_mSD is None:
        logits = model.logits_with_mlp_output(block, mlp_out_mSD, tokens)
    else:
        logits = model.continue_from(block, mid_mSD + mlp_out_mSD, tokens)
    sums = dict.fromkeys(np.unique(sequences.documents).tolist(), 0.0)
    for row in range(len(sequences)):
        for t in range(1, sequences.length):
            log_p = logits[row, t - 1].double().log_softmax(0)
            sums[int(sequences.documents[row, t])] -= float(log_p[tokens[row, t]])
    return np.array(list(sums.values()))


@torch.no_grad()
def test_fidelity_of_every_scheme_against_a_slow_twin():
    model, block = tiny_model("gpt2"), 1
    crosscoder, means = random_crosscoder(model), own_mean(model)
    rows, baselines = measure(model, crosscoder, means)
    explained = Explained(model, crosscoder)
    (whole,) = batches(model, TEXT, len(TEXT))
    read = explained.read(whole)
    p = read.contributions[block]
    point = Hookpoint(block, "resid_mid")
    decoded_mSD = read.batch.spread(read.decoded_BPD[:, explained.index[point]])
    true_mSD = read.batch.spread(p.mlp(read.captured(Hookpoint(block, "ln2"))))
    zero_BD = p.output(tuple(torch.zeros_like(t) for t in p.totals))
    weights_RE = np.vstack([np.ones(DOCUMENTS), Bootstrap(DOCUMENTS, RESAMPLES, 0).counts_RE])
    lost = slow_losses(model, true_mSD, block, TEXT)
    assert baselines.ce == pytest.approx(lost.sum() / (len(TEXT) * (TEXT.length - 1)), abs=1e-5)
    for resid_mid, mid in (("model", None), ("crosscoder", decoded_mSD)):
        mean_out = means[block].expand_as(true_mSD)
        ablated = {
            "mean": slow_losses(model, mean_out, block, TEXT),  # the model's own resid_mid, always
            "zero": slow_losses(model, read.batch.spread(zero_BD), block, TEXT, mid),
        }
        for scheme in ("full", "keep_1", "keep_random"):
            generator = scheme_generator(0, block, scheme)
            out_mSD = read.batch.spread(p.output(SCHEMES[scheme](p, generator)))
            losses = slow_losses(model, out_mSD, block, TEXT, mid)
            error = (out_mSD - true_mSD).square().sum() / (true_mSD - mean_out).square().sum()
            assert rows[block, resid_mid, "mean"].nmse[scheme].value == pytest.approx(float(error), rel=1e-4)
            for baseline in ("mean", "zero"):
                phi = [1 - (w @ losses - w @ lost) / (w @ ablated[baseline] - w @ lost) for w in weights_RE]
                expected = (phi[0], *np.quantile(phi[1:], (0.025, 0.975)))
                assert rows[block, resid_mid, baseline].phi[scheme] == pytest.approx(expected, rel=2e-3)


def test_the_mean_over_blocks_is_the_mean_of_the_chosen_ones():
    rows = of_random_crosscoder()
    for resid_mid in ("model", "crosscoder"):
        one, other, mean = (rows[block, resid_mid, "mean"] for block in (1, 2, "mean"))
        for scheme in one.phi:
            both = (one.phi[scheme].value + other.phi[scheme].value) / 2
            assert mean.phi[scheme].value == pytest.approx(both)


def test_hookpoints_that_are_missing_leave_out_what_needs_them():
    model = tiny_model("gpt_neo")
    whole = random_crosscoder(model)
    names = ("blocks.1.ln2", "blocks.2.ln2", "blocks.2.resid_mid")
    places = [whole.config.hook_names.index(name) for name in names]
    part = type(whole)(whole.config.model_copy(update={"hook_names": names}))
    with torch.no_grad():
        for name, value in part.named_parameters():
            axis = {"W_enc": 0, "W_dec": 1, "b_dec": 0}.get(name)
            old = getattr(whole, name)
            value.copy_(old if axis is None else old.index_select(axis, torch.tensor(places)))
    rows, _ = measure(model, part, averaged=(1, 2))
    kinds = {key[:2] for key in rows}
    assert kinds == {(1, "model"), (2, "model"), ("mean", "model"), (2, "crosscoder"), ("all", "model")}


def test_a_crosscoder_without_a_hookpoint_before_an_mlp_is_refused():
    model = tiny_model("gpt_neo")
    config = random_crosscoder(model).config.model_copy(update={"hook_names": ("blocks.2.resid_post",)})
    with pytest.raises(XtalkError, match=r"no hookpoint in front of an MLP among blocks\.2"):
        _ = Explained(model, type(random_crosscoder(model))(config)).blocks


def test_a_text_on_which_ablation_costs_nothing_is_refused():
    model = tiny_model("gpt_neo")
    for block in range(3):
        with torch.no_grad():
            model.hf.transformer.h[block].mlp.c_proj.weight.zero_()
    with pytest.raises(XtalkError, match="ablating the MLP of block 0 costs nothing"):
        measure(model, random_crosscoder(model))


def test_the_mean_output_is_that_of_the_first_tokens_of_the_training_text():
    model, text = tiny_model("gpt_neo"), held_out()
    tokens = torch.from_numpy(text.tokens).long()
    captured = model.capture(tokens, [Hookpoint(2, "resid_mid"), Hookpoint(2, "resid_post")])
    output_mSD = captured[:, :, 1] - captured[:, :, 0]
    means = mean_mlp_outputs(model, text, len(text) * text.length, [2])
    torch.testing.assert_close(means[2], output_mSD.mean((0, 1)), atol=1e-5, rtol=1e-5)
    long = token_sequences(np.tile(text.tokens, (400, 1)), np.tile(text.documents, (400, 1)))
    long.tokens[300:] = 1
    first, more = (mean_mlp_outputs(model, long, tokens, [2])[2] for tokens in (1, 4000))
    torch.testing.assert_close(first, means[2], atol=0.02, rtol=0.02)
    assert (first - more).abs().max() > 0.1

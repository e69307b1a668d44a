"""Reconstruction errors against sums written out, at both ends and between."""

import numpy as np
import pytest
import torch
from evaluation.held_out import exact_crosscoder, held_out, random_crosscoder, silent_crosscoder
from reference.tiny_models import tiny_model

from xtalk.errors import XtalkError
from xtalk.evaluation.reconstruction import ReconstructionMeter
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained

TEXT = held_out()
TOKENS = torch.from_numpy(TEXT.tokens).long()


@torch.no_grad()
def measure(model, crosscoder, micro_batch=4):
    explained = Explained(model, crosscoder)
    meter = ReconstructionMeter(explained, factors(model))
    for batch in batches(model, TEXT, micro_batch):
        meter.add(explained.read(batch))
    return meter.result()


def factors(model):
    return 0.5 + torch.arange(len(model.hookpoints())) / 7


def own_loss(model):
    log_p = model.logits(TOKENS)[:, :-1].double().log_softmax(-1)
    return -float(log_p.gather(2, TOKENS[:, 1:, None]).mean())


def test_an_exact_crosscoder_loses_nothing():
    model = tiny_model("gpt_neo")
    result = measure(model, exact_crosscoder(model))
    assert result.recon == result.fvu == 0
    assert set(result.fvu_by_hookpoint.values()) == {0}
    assert list(result.spliced) == [
        "blocks.1.resid_pre", "blocks.2.resid_pre", "blocks.2.resid_post"
    ]  # fmt: skip
    for spliced in result.spliced.values():
        assert spliced.ce == pytest.approx(own_loss(model), abs=1e-5)
        assert spliced.kl == pytest.approx(0, abs=1e-5)


def test_the_mean_of_the_text_explains_nothing():
    model = tiny_model("gpt_neo")
    crosscoder = silent_crosscoder(model)
    x_BPD = model.capture(TOKENS, model.hookpoints()).flatten(0, 1)
    with torch.no_grad():
        crosscoder.b_dec.copy_(x_BPD.mean(0))
    result = measure(model, crosscoder)
    assert result.fvu == pytest.approx(1, abs=1e-5)
    assert list(result.fvu_by_hookpoint.values()) == pytest.approx([1] * 13, abs=1e-5)
    assert (result.l0, result.dead, result.tokens) == (0, crosscoder.config.d_sae, TEXT.tokens.size)


@torch.no_grad()
def test_figures_of_a_lossy_crosscoder_written_out():
    model = tiny_model("gpt2")
    crosscoder = random_crosscoder(model)
    result = measure(model, crosscoder)
    x_BPD = model.capture(TOKENS, model.hookpoints()).flatten(0, 1)
    pre_BL = torch.einsum("bpd,pdl->bl", x_BPD, crosscoder.W_enc) + crosscoder.b_enc
    f_BL = torch.where(pre_BL > crosscoder.threshold, pre_BL, 0).relu()
    rebuilt_BPD = torch.einsum("bl,lpd->bpd", f_BL, crosscoder.W_dec) + crosscoder.b_dec
    scaled_BPD, scaled_rebuilt_BPD = (x * factors(model)[:, None] for x in (x_BPD, rebuilt_BPD))
    error_BP = (scaled_BPD - scaled_rebuilt_BPD).square().sum(2)
    variance_BP = (scaled_BPD - scaled_BPD.mean(0)).square().sum(2)
    assert result.recon == pytest.approx(float(error_BP.sum(1).mean()), rel=1e-4)
    assert result.fvu == pytest.approx(float(error_BP.sum() / variance_BP.sum()), rel=1e-4)
    by_hookpoint = (error_BP.sum(0) / variance_BP.sum(0)).tolist()
    assert list(result.fvu_by_hookpoint) == list(crosscoder.config.hook_names)
    assert list(result.fvu_by_hookpoint.values()) == pytest.approx(by_hookpoint, rel=1e-4)
    assert 1 < result.l0 < 29
    assert result.l0 == pytest.approx(float((f_BL > 0).sum(1).float().mean()))
    assert result.dead == int((f_BL == 0).all(0).sum())
    torch.testing.assert_close(result.firing_L, (f_BL > 0).float().mean(0))


@torch.no_grad()
def test_splicing_written_out():
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    result = measure(model, crosscoder)
    x_BPD = model.capture(TOKENS, model.hookpoints()).flatten(0, 1)
    rebuilt_BPD = crosscoder.decode(crosscoder.encode_sparse(x_BPD))
    true = model.logits(TOKENS)[:, :-1].double().log_softmax(-1)
    for name, block in (("blocks.2.resid_pre", 1), ("blocks.2.resid_post", 2)):
        stream = rebuilt_BPD[:, crosscoder.hook_index(name)].view(*TOKENS.shape, -1)
        spliced = model.continue_from(block, stream, TOKENS)[:, :-1].double().log_softmax(-1)
        kl = np.mean([
            float((true[b, t].exp() * (true[b, t] - spliced[b, t])).sum())
            for b in range(len(TOKENS)) for t in range(TOKENS.shape[1] - 1)
        ])  # fmt: skip
        assert kl > 0.05
        assert result.spliced[name].kl == pytest.approx(kl, rel=1e-4)
        ce = -float(spliced.gather(2, TOKENS[:, 1:, None]).mean())
        assert result.spliced[name].ce == pytest.approx(ce, rel=1e-5)


def test_a_hookpoint_at_which_nothing_varies_is_refused():
    """Its variance is rounding: an FVU would be anything."""
    model = tiny_model("gpt_neo")
    model.hf.transformer.h[1].ln_2.weight.data.zero_()
    with pytest.raises(XtalkError, match=r"activations at blocks\.1\.ln2 are the same at all 72 tokens"):
        measure(model, random_crosscoder(model))


def test_logits_that_are_not_finite_are_refused():
    model = tiny_model("gpt_neo")
    model.hf.transformer.ln_f.weight.data[0] = torch.nan
    with pytest.raises(XtalkError, match="logits are NaN or infinite"):
        measure(model, random_crosscoder(model))

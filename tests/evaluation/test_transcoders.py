"""Transcoders in the place of MLPs, against runs of the whole model."""

import pytest
import torch
from evaluation.held_out import held_out
from reference.tiny_models import tiny_model
from torch.nn import functional as F

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import mean_mlp_outputs, measure_baselines
from xtalk.evaluation.transcoders import evaluate_transcoder, transcoded_blocks
from xtalk.models.hookpoints import Hookpoint

TEXT = held_out(9, 8)


def transcoder(model, *written: str, read=("blocks.1.ln2",), scale=0.3) -> Crosscoder:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator)

    P, Q, D, L = len(read), len(written), model.d_model, 11
    return Crosscoder.from_tensors(
        W_enc=draw(P, D, L), W_dec=draw(L, Q, D), b_enc=draw(L), b_dec=draw(Q, D), hook_names=read,
        hook_names_out=written, architecture="relu", W_skip=draw(P, D, Q, D),
    ).requires_grad_(False)  # fmt: skip


def measured(model, made, counted=ALL):
    means = mean_mlp_outputs(model, TEXT, 100, tuple(transcoded_blocks(model, made.config)), counted)
    baselines = measure_baselines(model, TEXT, means, counted=counted)
    return baselines, evaluate_transcoder(model, made, TEXT, baselines, resamples=20, seed=0)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_the_loss_is_that_of_the_model_with_the_output_replaced(kind: str):
    model = tiny_model(kind)
    made = transcoder(model, "blocks.1.hook_mlp_out")
    baselines, [row] = measured(model, made)
    tokens = torch.from_numpy(TEXT.tokens).long()
    n, mid, post = model.capture(
        tokens, [Hookpoint(1, "ln2"), Hookpoint(1, "resid_mid"), Hookpoint(1, "resid_post")]
    ).unbind(2)
    logits = model.logits_with_mlp_output(1, made(n), tokens)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert row.ce == pytest.approx(float(expected), rel=1e-5)
    assert row.lost.value == pytest.approx(float(expected) - baselines.ce, abs=1e-5)
    ablation = baselines.ce_mean(1) - baselines.ce
    assert row.phi.value == pytest.approx(1 - row.lost.value / ablation, rel=1e-4)
    output = post - mid
    nmse = (made(n) - output).square().sum() / (output - baselines.mean_outputs[1]).square().sum()
    assert row.nmse.value == pytest.approx(float(nmse), rel=1e-3)


def test_each_output_has_its_block_and_tokens_that_do_not_count_keep_theirs():
    model = tiny_model("gpt_neo")
    read = ("blocks.0.resid_mid", "blocks.2.ln2")
    made = transcoder(model, "blocks.2.mlp.hook_out", "blocks.0.hook_mlp_out", read=read)
    _, rows = measured(model, made, Counted(2))
    assert [row.block for row in rows] == [2, 0]
    tokens = torch.from_numpy(TEXT.tokens).long()
    x = model.capture(tokens, [Hookpoint(0, "resid_mid"), Hookpoint(2, "ln2")])
    own = model.capture(tokens, [Hookpoint(2, "ln2"), Hookpoint(0, "ln2")])
    for q, row in enumerate(rows):
        output = model.mlp_weights(row.block)(own[:, :, q])
        output[:, 2:] = made(x)[:, 2:, q]
        logits = model.logits_with_mlp_output(row.block, output, tokens)[:, 2:-1]
        expected = F.cross_entropy(logits.flatten(0, 1), tokens[:, 3:].flatten())
        assert row.ce == pytest.approx(float(expected), rel=1e-5)


def test_what_has_no_meaning_is_refused_by_name():
    model, gemma = tiny_model("gpt_neo"), tiny_model("gemma2")
    with pytest.raises(XtalkError, match="writes output; expected outputs of MLPs"):
        transcoded_blocks(model, transcoder(model, "output").config)
    with pytest.raises(XtalkError, match="has a norm behind it"):
        transcoded_blocks(gemma, transcoder(gemma, "blocks.1.hook_mlp_out").config)
    plain = transcoder(model, "blocks.1.hook_mlp_out").config.model_copy(update={"hook_names_out": None})
    with pytest.raises(XtalkError, match=r"use xtalk\.measure"):
        transcoded_blocks(model, plain)

"""Several MLPs rebuilt at once, against hooks on transformers' own modules."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from evaluation.held_out import exact_crosscoder, held_out, random_crosscoder
from evaluation.test_counted import with_sink
from reference.tiny_models import tiny_model
from torch.nn import functional as F

from xtalk.data import ALL, Counted
from xtalk.evaluation import evaluate_crosscoder, mean_mlp_outputs, measure_baselines
from xtalk.evaluation.schemes import SCHEMES, scheme_generator
from xtalk.evaluation.together import blocks_together
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained

TEXT = held_out(24, 8)
TOKENS = torch.from_numpy(TEXT.tokens).long()
SKIPPED = Counted(1, frozenset(TEXT.tokens[:2, 3].tolist()))


def evaluated(model, crosscoder, counted, micro_batch=5):
    means = mean_mlp_outputs(model, TEXT, 10**6, Explained(model, crosscoder).blocks, counted)
    baselines = measure_baselines(model, TEXT, means, counted=counted)
    how = {"resamples": 20, "seed": 0, "micro_batch": micro_batch}
    factor_P = torch.ones(len(crosscoder.config.hook_names))
    found = evaluate_crosscoder(model, crosscoder, factor_P, TEXT, baselines, **how)
    return {
        row.block: row for row in found.fidelity if (row.resid_mid, row.baseline) == ("model", "mean")
    }, means


@torch.no_grad()
def slow_loss(model, outputs, counted_mS):
    """The mean loss of predictions from tokens that count, with hooks that replace outputs of MLPs."""
    with ExitStack() as stack:
        for block, output_mSD in outputs.items():
            hook = model.hf.transformer.h[block].mlp.register_forward_hook(lambda *_, out=output_mSD: out)
            stack.callback(hook.remove)
        logits = model.hf(input_ids=TOKENS, use_cache=False).logits
    loss_mT = F.cross_entropy(logits[:, :-1].double().transpose(1, 2), TOKENS[:, 1:], reduction="none")
    return loss_mT[counted_mS[:, :-1]].mean().item()


@pytest.mark.parametrize("counted", [ALL, SKIPPED], ids=["all", "some"])
@torch.no_grad()
def test_all_at_once_is_what_hooks_make_of_the_model(counted):
    model = with_sink()
    crosscoder = random_crosscoder(model)
    rows, means = evaluated(model, crosscoder, counted)
    counted_mS = torch.from_numpy(counted.mask(TEXT.tokens))
    explained = Explained(model, crosscoder)
    [whole] = batches(model, TEXT, len(TEXT), counted.mask(TEXT.tokens))
    read = explained.read(whole)
    own = {
        block: model.mlp_weights(block)(model.capture(TOKENS, [Hookpoint(block, "ln2")])[:, :, 0])
        for block in explained.blocks
    }

    def loss(outputs_B, blocks):
        spread = {b: torch.where(counted_mS[..., None], whole.spread(outputs_B[b]), own[b]) for b in blocks}
        return slow_loss(model, spread, counted_mS)

    ce = slow_loss(model, {}, counted_mS)
    count = int(counted_mS.sum())
    for label, blocks in {"all": (1, 2), "all_with_0": (0, 1, 2)}.items():
        ablation = loss({b: means[b].expand(count, -1) for b in blocks}, blocks) - ce
        assert rows[label].ablation.value == pytest.approx(ablation, rel=1e-4)
        for scheme in ("full", "keep_1", "shrink"):
            p = read.contributions
            kept = {b: SCHEMES[scheme](p[b], scheme_generator(0, b, scheme)) for b in blocks}
            lost = loss({b: p[b].output(kept[b]) for b in blocks}, blocks) - ce
            assert rows[label].lost[scheme].value == pytest.approx(lost, rel=1e-4)
            assert rows[label].phi[scheme].value == pytest.approx(1 - lost / ablation, rel=1e-4)
            assert rows[label].weighed[scheme] == pytest.approx(rows[label].phi[scheme])
            nmse = np.mean([rows[b].nmse[scheme].value for b in blocks])
            assert rows[label].nmse[scheme].value == pytest.approx(nmse)
    assert rows["all"].lost["keep_1"].value != pytest.approx(rows["mean"].lost["keep_1"].value, rel=0.01)


@pytest.mark.parametrize("kind", ["gpt_neox", "llama", "gemma2", "olmo2", "granite"])
def test_exact_codes_rebuild_all_mlps_of_every_family(kind):
    """At once, and with tokens that do not count, the model is itself: norms after MLPs, parallel blocks."""
    model = tiny_model(kind)
    rows, _ = evaluated(model, exact_crosscoder(model), SKIPPED)
    for label in ("all", "all_with_0"):
        assert rows[label].phi["full"] == pytest.approx((1, 1, 1), abs=2e-3)
        assert abs(rows[label].phi["keep_1"].value - 1) > 0.01


def test_a_single_mlp_is_nothing_to_rebuild_at_once():
    assert blocks_together((3, 14, 26)) == {"all": (3, 14, 26)}
    assert blocks_together((0, 3)) == {"all_with_0": (0, 3)}
    assert blocks_together((3,)) == blocks_together((0,)) == {}

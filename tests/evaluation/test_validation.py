"""Interventions against runs of the whole model, and measures that are known to be right."""

import numpy as np
import pytest
import torch
from evaluation.held_out import exact_crosscoder, held_out, random_crosscoder
from reference.tiny_models import tiny_model
from torch.nn import functional as F

import xtalk.evaluation.interventions as interventions
import xtalk.evaluation.validation as module
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.interventions import loss_effects, mixed, removed
from xtalk.evaluation.validation import MEASURES, ValidationConfig, validate_interactions
from xtalk.interactions.pairs import PairInteractions
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.explained import Explained

CONFIG = ValidationConfig(pairs=20, loss_pairs=4, occurrences=1000, loss_occurrences=3, resamples=50)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "gemma2"])
@pytest.mark.parametrize("logits", [1 << 25, 1])
def test_loss_effects_are_those_of_the_whole_model(kind, logits, monkeypatch):
    monkeypatch.setattr(interventions, "_LOGITS", logits)
    monkeypatch.setattr(interventions, "WINDOW", 3)
    model, block = tiny_model(kind), 1
    tokens = torch.from_numpy(held_out(4, 9).tokens).long()
    mid, n = model.capture(tokens, [Hookpoint(block, "resid_mid"), Hookpoint(block, "ln2")]).unbind(2)
    mlp = model.mlp_weights(block)
    generator = torch.Generator().manual_seed(0)
    token_Z = torch.tensor([0, 17, 12, 30, 31])  # one at the end of its sequence, two in one sequence
    first, second = 0.5 * torch.randn(2, len(token_Z), model.d_model, generator=generator)
    out_4ZD = removed(mlp, n.flatten(0, 1)[token_Z], first, second)
    post = mid + model.added(block, mlp(n))
    every = np.ones(tokens.shape, dtype=bool)
    found = loss_effects(model, block, post, tokens, token_Z, model.added(block, out_4ZD), every)
    for z, place in enumerate(token_Z.tolist()):
        row, position = divmod(place, 9)
        losses = []
        for taken in (0 * first[z], first[z], second[z], first[z] + second[z]):
            changed = n.clone()
            changed[row, position] -= taken
            logits_SV = model.logits_with_mlp_output(block, mlp(changed), tokens)[row]
            window = slice(position, min(position + 3, 8))
            targets = tokens[row, window.start + 1 : window.stop + 1]
            losses.append(
                float(F.cross_entropy(logits_SV[window], targets, reduction="sum")) if len(targets) else 0
            )
        assert float(found[z]) == pytest.approx(losses[0] - losses[1] - losses[2] + losses[3], abs=2e-5)
    assert found.abs().max() > 1e-3
    assert found[1] == 0


def test_mixed_effects_of_a_linear_map_are_nothing():
    base, a, b = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(
        mixed(torch.stack([base, base - a, base - b, base - a - b])), torch.zeros(5).double()
    )
    product = torch.stack([base**2, (base - a) ** 2, (base - b) ** 2, (base - a - b) ** 2])
    torch.testing.assert_close(mixed(product), 2 * a * b)


def twice():
    """The same sequences in both halves, as other documents."""
    half = held_out(6, 9)
    documents = np.concatenate([half.documents, half.documents + 1000])
    return token_sequences(np.concatenate([half.tokens, half.tokens]), documents)


@pytest.fixture
def few_occurrences(monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 3)
    monkeypatch.setattr(module, "FEWEST_PAIRS", 5)


def test_an_exact_crosscoder_and_the_same_text_predict_interventions_exactly(few_occurrences):
    model = tiny_model("gpt_neo")
    rows = validate_interactions(model, exact_crosscoder(model), twice(), CONFIG, seed=0)
    by_key = {(r.block, r.measure, r.effect, r.weighting): r for r in rows}
    assert len(by_key) == len(rows) == (model.n_blocks + 1) * len(MEASURES) * 2 * 2
    for block in (*range(model.n_blocks), "mean"):
        for weighting in ("occurrence", "text"):
            exact = by_key[block, "true_interaction", "output", weighting]
            assert exact.rho.value == pytest.approx(1, abs=2e-3)
            assert by_key[block, "interaction", "output", weighting].rho.value < 0.999
            assert exact.pairs == (20 if block != "mean" else 20 * model.n_blocks)
        counts = by_key[block, "co_activation_count", "output", "text"]
        assert counts.rho.low <= counts.rho.value <= counts.rho.high
        best = max(abs(by_key[block, m, "output", "text"].rho.value) for m in module.BASELINES)
        if block != "mean":
            assert by_key[block, "decoder", "output", "text"].lead.value == pytest.approx(
                by_key[block, "decoder", "output", "text"].rho.value - best
            )


def test_no_document_is_both_measured_and_intervened_on(few_occurrences, monkeypatch):
    model, text = tiny_model("gpt_neo"), twice()
    documents = text.documents.copy()
    documents[6:8] = documents[5, -1]  # the cut is between 5 and 6: this document goes on for two sequences
    divided = token_sequences(text.tokens, documents)
    places, whole = [], module._effects

    def spy(explained, block, half, pairs_Q2, chosen, config):
        places.append((half, chosen.token_Z))
        return whole(explained, block, half, pairs_Q2, chosen, config)

    monkeypatch.setattr(module, "_effects", spy)
    validate_interactions(model, random_crosscoder(model), divided, CONFIG, seed=0)
    for half, token_Z in places:
        assert half.tokens == 4 * 9
        assert token_Z.min() >= 2 * 9
        assert not set(half.sequences.documents.ravel()[token_Z]) & set(documents[:6].ravel())
    one = token_sequences(text.tokens, np.zeros_like(documents))
    with pytest.raises(XtalkError, match="0 pairs of latents"):
        validate_interactions(model, random_crosscoder(model), one, CONFIG, seed=0)


def test_the_same_seed_gives_the_same_figures_and_another_other_pairs(few_occurrences):
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    first, again, other = (
        validate_interactions(model, crosscoder, twice(), CONFIG, seed=s) for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_too_little_text_is_said():
    model = tiny_model("gpt_neo")
    with pytest.raises(XtalkError, match="expected 20 or more"):
        validate_interactions(model, random_crosscoder(model), held_out(4, 9), CONFIG, seed=0)
    with pytest.raises(XtalkError, match="one sequence"):
        validate_interactions(model, random_crosscoder(model), held_out(1, 9), CONFIG, seed=0)


def in_the_stream(whole: Crosscoder) -> Crosscoder:
    """The part of a crosscoder that is at resid_mid."""
    p = [p for p, name in enumerate(whole.config.hook_names) if name.endswith("resid_mid")]
    return Crosscoder.from_tensors(
        W_enc=whole.W_enc[p], W_dec=whole.W_dec[:, p], b_enc=whole.b_enc, b_dec=whole.b_dec[p],
        hook_names=[whole.config.hook_names[q] for q in p], architecture="batchtopk", threshold=2.0,
    )  # fmt: skip


def prepared(most: int, site: str = "ln2"):
    """Both halves of a text, every pair that occurs often, and where they occur."""
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model) if site == "ln2" else in_the_stream(random_crosscoder(model))
    explained, text = Explained(model, crosscoder), held_out(10, 9)
    pairs = PairInteractions(crosscoder.config.d_sae, [f"blocks.{b}" for b in explained.blocks])
    measured = module._read(explained, text, ALL, slice(0, 5), pairs=pairs)
    intervened = module._read(explained, text, ALL, slice(5, None), seen=text.documents[:5])
    matrix, generator = pairs.result(), np.random.default_rng(0)
    pairs_Q2 = module._draw_pairs(matrix, "blocks.1", measured, intervened, 12, generator)
    chosen = [module._occurrences(half, pairs_Q2, most, generator) for half in (measured, intervened)]
    return explained, matrix, measured, intervened, pairs_Q2, chosen


def test_pairs_are_drawn_from_every_tenth_of_those_that_occur_often(few_occurrences, monkeypatch):
    _, matrix, measured, intervened, _, _ = prepared(most=1)
    generator = np.random.default_rng(0)
    arguments = (matrix, "blocks.1", measured, intervened)
    values = matrix.interactions("blocks.1", symmetric=True).toarray()
    halves = [half.codes_TL.toarray() > 0 for half in (measured, intervened)]
    often = [
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if values[i, j] > 0 and min((active[:, i] & active[:, j]).sum() for active in halves) >= 3
    ]
    every = module._draw_pairs(*arguments, 10_000, generator)
    assert sorted(map(tuple, every.tolist())) == often
    assert 40 < len(often) < (values > 0).sum() / 2
    few = module._draw_pairs(*arguments, 20, generator)
    ranks = np.argsort(np.argsort([values[pair] for pair in often]))
    tenths = np.array_split(np.arange(len(often)), 10)
    tenth = np.repeat(np.arange(10), [len(part) for part in tenths])
    place = {pair: tenth[rank] for pair, rank in zip(often, ranks, strict=True)}
    assert np.bincount([place[pair] for pair in map(tuple, few.tolist())]).tolist() == [2] * 10
    assert [place[pair] for pair in map(tuple, few.tolist())] != sorted(place[tuple(p)] for p in few.tolist())


def test_measures_of_pairs_are_those_of_loops_over_tokens(few_occurrences):
    explained, matrix, half, _, pairs_Q2, chosen = prepared(most=1000)
    found = module._measures(explained, 1, matrix, half, pairs_Q2, chosen[0])
    f_TL, p = half.codes_TL.toarray(), explained.index[Hookpoint(1, "ln2")]
    d_LD, b_D = explained.crosscoder.W_dec[:, p].detach(), explained.crosscoder.b_dec[p].detach()
    mlp, directed = explained.places[1].mlp, matrix.interactions("blocks.1").toarray()
    for q, (i, j) in enumerate(pairs_Q2.tolist()):
        both = np.flatnonzero((f_TL[:, i] > 0) & (f_TL[:, j] > 0))
        rate, differences = len(both) / len(f_TL), []
        for t in both:
            n = b_D + torch.from_numpy(f_TL[t]) @ d_LD
            a, b = (float(f_TL[t, latent]) * d_LD[latent] for latent in (i, j))
            differences.append(float((mlp(n) - mlp(n - a) - mlp(n - b) + mlp(n - a - b)).norm()))
        cosine = f_TL[:, i] @ f_TL[:, j] / np.linalg.norm(f_TL[:, i]) / np.linalg.norm(f_TL[:, j])
        size = f_TL[both, i].mean() * f_TL[both, j].mean() * float(d_LD[i].norm() * d_LD[j].norm())
        interaction = (directed[i, j] + directed[j, i]) / 2
        expected = {
            "interaction": (interaction / rate, interaction),
            "true_interaction": (np.mean(differences), np.mean(differences) * rate),
            "co_activation": (cosine, cosine),
            "co_activation_count": (len(both), len(both)),
            "decoder": (abs(float(torch.cosine_similarity(d_LD[i], d_LD[j], dim=0))),) * 2,
            "size": (size, size * rate),
        }
        assert set(expected) == set(MEASURES)
        for name, (per_occurrence, per_token) in expected.items():
            assert found["occurrence"][name][q] == pytest.approx(per_occurrence, rel=2e-3, abs=1e-5), name
            assert found["text"][name][q] == pytest.approx(per_token, rel=2e-3, abs=1e-6), name
    cosines = torch.cosine_similarity(d_LD[pairs_Q2[:, 0]], d_LD[pairs_Q2[:, 1]], dim=1)
    assert (cosines < -1e-3).any()


@pytest.mark.parametrize("site", ["ln2", "resid_mid"])
def test_effects_are_those_of_loops_and_the_loss_is_asked_of_the_first_few(
    site, few_occurrences, monkeypatch
):
    explained, _, _, half, pairs_Q2, (_, chosen) = prepared(4, site)
    asked = []

    def signed(model, block, resid, tokens, token_Z, out_4ZD, counted_mS):
        asked.append((token_Z, out_4ZD))
        return -torch.ones(len(token_Z), dtype=torch.float64)

    monkeypatch.setattr(module, "loss_effects", signed)
    config = ValidationConfig(pairs=12, loss_pairs=5, occurrences=4, loss_occurrences=2)
    found = module._effects(explained, 1, half, pairs_Q2, chosen, config)
    point, block = Hookpoint(1, site), explained.model.hf.transformer.h[1]
    p, weights = explained.index[point], explained.places[1].mlp
    tokens = torch.from_numpy(half.sequences.tokens).long()
    n_TD = explained.model.capture(tokens, [point])[:, :, 0].flatten(0, 1).float()

    def mlp(x_D):
        return weights(x_D) if site == "ln2" else weights(block.ln_2(x_D))

    f_TL, d_LD = half.codes_TL.toarray(), explained.crosscoder.W_dec[:, p].detach()
    numbers = np.unique(half.sequences.documents, return_inverse=True)[1].ravel()
    sums, counts = np.zeros((2, len(pairs_Q2), numbers.max() + 1))
    for q, t in zip(chosen.pair_Z.tolist(), chosen.token_Z.tolist(), strict=True):
        a, b = (float(f_TL[t, latent]) * d_LD[latent] for latent in pairs_Q2[q].tolist())
        n = n_TD[t]
        sums[q, numbers[t]] += float((mlp(n) - mlp(n - a) - mlp(n - b) + mlp(n - a - b)).norm())
        counts[q, numbers[t]] += 1
    np.testing.assert_allclose(found["output"].sums_QE, sums, rtol=2e-3, atol=1e-5)
    np.testing.assert_array_equal(found["output"].counts_QE, counts)
    loss = found["loss"]
    np.testing.assert_array_equal(loss.sums_QE, loss.counts_QE)  # the size of what is always -1
    few = np.minimum(np.bincount(chosen.pair_Z)[:5], 2)
    np.testing.assert_array_equal(loss.counts_QE.sum(1), few)
    assert sum(len(token_Z) for token_Z, _ in asked) == few.sum()

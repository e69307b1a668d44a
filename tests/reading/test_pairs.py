"""Pair matrices at every site against loops over sequences, tokens and pairs of features."""

import numpy as np
import pytest
from evaluation.held_out import held_out, make_crosscoder, random_crosscoder
from reference.pair_terms import attention_terms, scale_changes
from reference.tiny_models import BLOCKS, tiny_model

from xtalk.codes import Codes
from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.interactions.pairs import PairInteractions
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained
from xtalk.reading.pairs import measure_pairs

TEXT = held_out(2, 5)
KINDS = ["gpt_neo", "llama"]


def read_all(model, crosscoder):
    [batch] = batches(model, TEXT)
    return Explained(model, crosscoder).read(batch)


def features_at(read, place):
    """(latent, activation) of the features active at a token of the flattened text."""
    codes = read.codes
    return [(int(i), float(f)) for i, f in zip(codes.latents[place], codes.values[place], strict=True) if f]


def loops_of_attention(model, crosscoder, block, site, skip=0):
    """Sums by the query's document and pair, and over everything, features with themselves too.

    Nothing is active at the first `skip` positions.
    """
    read, S = read_all(model, crosscoder), TEXT.length
    attention, L = model.attention_weights(block), crosscoder.config.d_sae
    sums, total = np.zeros((read.documents_B.max() + 1, L, L)), 0.0
    source, destination = (read.explained.index[Hookpoint(block, s)] for s in ("ln1", "resid_mid"))
    d, d_after = crosscoder.W_dec[:, source], crosscoder.W_dec[:, destination]

    for n in range(len(TEXT)):
        active = [features_at(read, n * S + t) if t >= skip else [] for t in range(S)]
        x_SD = read.x_BPD[n * S : (n + 1) * S, source]
        for t, _, i, j, term in attention_terms(attention, d, d_after, x_SD, active, site):
            total += term
            if i != j:
                sums[read.documents_B[n * S + t], i, j] += term
    return sums, total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["qk", "ov"])
def test_attention_with_all_keys(kind, site, monkeypatch):
    monkeypatch.setattr("xtalk.interactions.attention._ELEMENTS", 500)  # some groups at a time
    model = tiny_model(kind)
    crosscoder = random_crosscoder(model)
    measured = measure_pairs(model, crosscoder, TEXT, [site], keys=100)
    matrix = measured.matrices[site]
    assert measured.coverage == pytest.approx(1)
    assert matrix.parts == tuple(f"blocks.{block}" for block in range(BLOCKS))
    by_document, total = loops_of_attention(model, crosscoder, 1, site)
    sums, lengths = by_document.sum(0), np.unique(TEXT.documents, return_counts=True)[1]
    assert len(lengths) == matrix.documents > 1
    found = matrix.interactions("blocks.1").toarray()
    np.testing.assert_allclose(found, sums / TEXT.tokens.size, rtol=1e-4, atol=1e-6)
    relative = matrix.interactions("blocks.1", "relative").toarray()
    np.testing.assert_allclose(relative, sums / total, rtol=1e-4, atol=1e-7)
    left = by_document - sums / TEXT.tokens.size * lengths[:, None, None]
    errors = np.sqrt(len(lengths) / (len(lengths) - 1) * (left**2).sum(0)) / TEXT.tokens.size
    listed = matrix.standard_errors("blocks.1").toarray()
    rounding = 1e-3 * found.max()  # the moments are float32, and nearly cancel where documents are alike
    np.testing.assert_allclose(listed[found > 0], errors[found > 0], rtol=1e-3, atol=rounding)
    assert errors.max() > 100 * rounding


def test_fewer_keys_cover_less():
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    few, every = (measure_pairs(model, crosscoder, TEXT, ["qk"], keys=keys) for keys in (2, 6))
    assert 0.3 < few.coverage < every.coverage
    assert few.matrices["qk"].total() < every.matrices["qk"].total()


@pytest.mark.parametrize("kind", [*KINDS, "gpt_neox"])
def test_norms(kind):
    model = tiny_model(kind)
    crosscoder = random_crosscoder(model)
    matrix = measure_pairs(model, crosscoder, TEXT, ["norm"]).matrices["norm"]
    assert matrix.parts == tuple(f"blocks.{b}.{site}" for b in range(BLOCKS) for site in ("ln1", "ln2"))
    read, L = read_all(model, crosscoder), crosscoder.config.d_sae
    norm, source = model.norm_weights(Hookpoint(1, "ln2"))
    p = read.explained.index[source]
    d, sums, linear = crosscoder.W_dec[:, p], np.zeros((L, L)), 0.0
    for place in range(TEXT.tokens.size):
        x, active = read.x_BPD[place, p], features_at(read, place)
        for i, f_i in active:
            linear += float((norm.centre(f_i * d[i]) / norm.scale(x) * norm.weight).norm())
        for i, j, change in scale_changes(norm, d, x, active):
            sums[i, j] += change
    found = matrix.interactions("blocks.1.ln2").toarray()
    np.testing.assert_allclose(found, sums / TEXT.tokens.size, rtol=1e-3, atol=1e-5)
    relative = matrix.interactions("blocks.1.ln2", "relative").sum()
    assert relative == pytest.approx(sums.sum() / (sums.sum() + linear), rel=1e-3)


def test_mlps_are_those_of_pair_interactions():
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    read = read_all(model, crosscoder)
    direct = PairInteractions(crosscoder.config.d_sae, [f"blocks.{b}" for b in range(BLOCKS)])
    direct.add(read.contributions.named("blocks.{}".format), read.documents_B)
    both = measure_pairs(model, crosscoder, TEXT, ["mlp", "norm"])
    assert both.coverage is None
    assert set(both.matrices) == {"mlp", "norm"}
    expected = direct.result()
    np.testing.assert_allclose(both.matrices["mlp"].sums_EP, expected.sums_EP)
    np.testing.assert_allclose(both.matrices["mlp"].errors_EQ, expected.errors_EQ, rtol=1e-4)


def test_a_crosscoder_without_the_hookpoints_is_refused():
    model = tiny_model("gpt_neo")
    config = make_crosscoder(model, 6).config.model_copy(update={"hook_names": ("blocks.1.ln2",)})
    crosscoder = type(make_crosscoder(model, 6))(config)
    with pytest.raises(XtalkError, match="ln1 and resid_mid"):
        measure_pairs(model, crosscoder, TEXT, ["qk"])
    with pytest.raises(XtalkError, match="where norms read"):
        measure_pairs(model, crosscoder, TEXT, ["norm"])


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_those_of_tokens_that_count(kind):
    """In attention neither queries nor keys that do not; means are over the tokens that do."""
    model = tiny_model(kind)
    crosscoder, counted = random_crosscoder(model), Counted(1)
    measured = measure_pairs(model, crosscoder, TEXT, ["mlp", "qk", "ov", "norm"], keys=100, counted=counted)
    left = len(TEXT) * (TEXT.length - 1)
    for site in ("qk", "ov"):
        matrix = measured.matrices[site]
        sums, total = loops_of_attention(model, crosscoder, 1, site, skip=1)
        found = matrix.interactions("blocks.1").toarray()
        np.testing.assert_allclose(found, sums.sum(0) / left, rtol=1e-4, atol=1e-6)
        relative = matrix.interactions("blocks.1", "relative").toarray()
        np.testing.assert_allclose(relative, sums.sum(0) / total, rtol=1e-4, atol=1e-7)
        assert matrix.tokens == left
    read = read_all(model, crosscoder)
    kept = counted.mask(TEXT.tokens).ravel()
    codes = Codes(read.codes.latents[kept], read.codes.values[kept], read.codes.n_latents)
    direct = PairInteractions(crosscoder.config.d_sae, [f"blocks.{b}" for b in range(BLOCKS)])
    direct.add(read.explained.contributions(codes, {}).named("blocks.{}".format), read.documents_B[kept])
    np.testing.assert_allclose(measured.matrices["mlp"].sums_EP, direct.result().sums_EP, rtol=1e-5)
    assert 0 < measured.coverage < 1  # what queries attend to the first position is left out
    everything = measure_pairs(model, crosscoder, TEXT, ["norm"]).matrices["norm"]
    assert measured.matrices["norm"].tokens == left < everything.tokens

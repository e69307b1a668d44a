"""What latents fire on, against activations read from the model."""

import numpy as np
import pytest
import torch
from evaluation.held_out import exact_crosscoder, held_out, model_with_tokenizer, random_crosscoder
from reference.tiny_models import tiny_model

from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.reading.features import describe_features, logit_effects

TEXT = held_out(n=12, length=16, seed=4)
MODEL = model_with_tokenizer()


def activation(latent: int) -> np.ndarray:
    """Latent `latent` of the exact crosscoder is the positive part of one coordinate."""
    hookpoint, coordinate = divmod(latent, MODEL.d_model)
    point = MODEL.hookpoints()[hookpoint]
    captured = MODEL.capture(torch.from_numpy(TEXT.tokens).long(), [point])
    return captured[:, :, 0, coordinate].relu().numpy()


def test_rates_means_and_top_tokens():
    latents = [30, 3, 100]
    for latent, feature in zip(
        latents, describe_features(MODEL, exact_crosscoder(MODEL), TEXT, latents), strict=True
    ):
        f_nS = activation(latent)
        assert feature.latent == latent
        assert feature.firing_rate == pytest.approx((f_nS > 0).mean())
        assert feature.mean_activation == pytest.approx(f_nS[f_nS > 0].mean(), rel=1e-5)
        counts = {t: int((f_nS[TEXT.tokens == t] > 0).sum()) for t in np.unique(TEXT.tokens).tolist()}
        for text, count in feature.top_tokens:
            assert counts.pop(int(text[1:])) == count  # token 7 is written "w7"
        assert len(feature.top_tokens) == 8
        assert max(counts.values()) <= min(count for _, count in feature.top_tokens)


def test_contexts_are_windows_around_the_strongest_activations_within_a_document():
    (feature,) = describe_features(MODEL, exact_crosscoder(MODEL), TEXT, [5], contexts=4, window=6)
    f_nS, peaks, taken = activation(5), [], set()
    for place in np.argsort(-f_nS.ravel()).tolist():
        row, t = divmod(place, TEXT.length)
        window = [
            (row, s) for s in range(max(0, t - 3), min(TEXT.length, max(0, t - 3) + 6))
            if TEXT.documents[row, s] == TEXT.documents[row, t]
        ]  # fmt: skip
        if not taken & set(window):
            taken |= set(window)
            peaks.append((place, window))
    assert len(feature.contexts) == 4
    for context, (place, window) in zip(feature.contexts, peaks, strict=False):
        assert "".join(context.tokens) == " ".join(f"w{TEXT.tokens[at]}" for at in window)
        assert [text.strip() for text in context.tokens] == [f"w{TEXT.tokens[at]}" for at in window]
        assert list(context.activations) == pytest.approx([float(f_nS[at]) for at in window], abs=1e-6)
        assert window[context.peak] == divmod(place, TEXT.length)


def test_a_latent_that_never_fires_has_no_contexts():
    crosscoder = exact_crosscoder(MODEL)
    with torch.no_grad():
        crosscoder.b_enc[9] = -1e6
    (feature,) = describe_features(MODEL, crosscoder, TEXT, [9])
    assert (feature.firing_rate, feature.mean_activation) == (0, 0)
    assert feature.top_tokens == feature.contexts == ()


def test_contexts_do_not_cross_sequences():
    text = token_sequences(TEXT.tokens, np.zeros_like(TEXT.documents))
    (feature,) = describe_features(MODEL, exact_crosscoder(MODEL), text, [5], contexts=100, window=40)
    assert len(feature.contexts) <= len(text)
    rows = [" ".join(f"w{t}" for t in row) for row in text.tokens]
    for context in feature.contexts:
        assert any("".join(context.tokens) in row for row in rows)


def test_unknown_latents_and_missing_tokenizers_are_refused():
    with pytest.raises(XtalkError, match="no latent 100000"):
        describe_features(MODEL, exact_crosscoder(MODEL), TEXT, [1, 100000])
    model = tiny_model("gpt_neo")
    with pytest.raises(XtalkError, match="without a tokenizer"):
        describe_features(model, exact_crosscoder(model), TEXT, [1])


def test_logit_effects_are_those_of_adding_the_latent_to_the_last_residual_stream():
    crosscoder, latents = random_crosscoder(MODEL), [4, 17]
    activation_L = torch.linspace(0.5, 2.0, crosscoder.config.d_sae)
    found = logit_effects(MODEL, crosscoder, activation_L, latents)
    head, norm = MODEL.hf.get_output_embeddings(), MODEL.hf.base_model.ln_f
    with torch.no_grad():
        base_D = crosscoder.b_dec[-1]
        for row, latent in enumerate(latents):
            added_D = base_D + activation_L[latent] * crosscoder.W_dec[latent, -1]
            effect_V = head(norm(added_D)) - head(norm(base_D))
            torch.testing.assert_close(found[row], effect_V - effect_V.mean(), rtol=1e-4, atol=1e-5)

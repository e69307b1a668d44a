"""QK and OV terms against the scores and outputs of attention from which features were removed."""

import pytest
import torch
from reference.tiny_models import D_MODEL, tiny_model

from xtalk.codes import Codes
from xtalk.interactions.attention import AttentionFeatures, strongest_keys

S, K, L = 7, 3, 11


def setting(kind, block=1, seed=0):
    """Attention in float64, inputs, residual stream, directions at both, and codes with a padded slot."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = tiny_model(kind).attention_weights(block)
    fields = {
        name: value.double() if isinstance(value, torch.Tensor) else value
        for name, value in vars(weights).items()
    }
    attention = type(weights)(**fields)
    latents = torch.stack([torch.randperm(L, generator=generator)[:K] for _ in range(S)])
    values = 0.2 + draw(S, K).abs()
    values[2, 1] = 0
    return (
        attention,
        draw(S, D_MODEL),
        draw(S, D_MODEL),
        draw(L, D_MODEL),
        draw(L, D_MODEL),
        Codes(latents, values, L),
    )


KINDS = ["gpt_neo", "gpt_neox", "llama"]  # a window; partial rotary positions; rotary and grouped queries
PAIRS = torch.tensor([[3, 1], [3, 3], [6, 5], [5, 2], [4, 0]])


def without(n, token, part):
    changed = n.clone()
    changed[token] -= part
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_qk_terms_are_mixed_differences_of_scores(kind):
    attention, n, _, d, d_after, codes = setting(kind)
    attention = type(attention)(**(vars(attention) | {"window": None}))  # terms do not ask what is seen
    query, key = PAIRS.unbind(1)
    of_query, of_key = AttentionFeatures.of(attention, d, d_after).sides("qk", codes)
    found = torch.einsum("ghkd,ghjd->ghkj", of_query[query], of_key[key])
    assert found.shape == (len(PAIRS), len(attention.W_Q), K, K)
    for g, (t, s) in enumerate(PAIRS.tolist()):
        for a in range(K):
            for b in range(K):
                at_query = without(n, t, codes.values[t, a] * d[codes.latents[t, a]])
                at_key = without(n, s, codes.values[s, b] * d[codes.latents[s, b]])
                scores = [attention.scores(q, k)[:, t, s] for q in (n, at_query) for k in (n, at_key)]
                expected = scores[0] - scores[1] - scores[2] + scores[3]
                torch.testing.assert_close(found[g, :, a, b], expected, rtol=1e-8, atol=1e-8)
    assert found.abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_ov_terms_are_mixed_differences_at_a_fixed_pattern(kind):
    attention, n, x, d, d_after, codes = setting(kind)
    pattern = attention.pattern(n)

    def along(x_SD, source_SD, t):
        value = torch.einsum("sd,hde->hse", source_SD, attention.W_V) + attention.b_V[:, None]
        out_D = torch.einsum("hs,hse,hed->d", pattern[:, t], value, attention.W_O) + attention.b_O
        return x_SD[t] @ out_D, out_D

    query, key = PAIRS.unbind(1)
    of_query, of_key = AttentionFeatures.of(attention, d, d_after).sides("ov", codes)
    weighed = of_query[query] * pattern[:, query, key].T[:, :, None, None]
    found = torch.einsum("ghkd,ghjd->gkj", weighed, of_key[key])
    for g, (t, s) in enumerate(PAIRS.tolist()):
        for a in range(K):
            for b in range(K):
                at_destination = without(x, t, codes.values[t, a] * d_after[codes.latents[t, a]])
                at_source = without(n, s, codes.values[s, b] * d[codes.latents[s, b]])
                values = [along(q, k, t)[0] for q in (x, at_destination) for k in (n, at_source)]
                expected = values[0] - values[1] - values[2] + values[3]
                torch.testing.assert_close(found[g, a, b], expected, rtol=1e-8, atol=1e-8)
    both = without(without(n, 1, d[0]), 2, d[1])
    outputs = [along(x, source, 3)[1] for source in (n, without(n, 1, d[0]), without(n, 2, d[1]), both)]
    difference = outputs[0] - outputs[1] - outputs[2] + outputs[3]
    torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0, atol=1e-12)  # sources add up


def test_strongest_keys():
    pattern = torch.tensor([[1.0, 0, 0, 0], [0.4, 0.6, 0, 0], [0.2, 0.5, 0.3, 0], [0.1, 0.2, 0.3, 0.4]])
    query, key = strongest_keys(pattern, 2)
    assert list(zip(query.tolist(), key.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 2),
        (3, 3),
    ]
    query, key = strongest_keys(pattern, 100)
    assert len(query) == 10

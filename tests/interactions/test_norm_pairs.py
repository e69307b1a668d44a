"""Scale-change terms against norms of inputs from which features were removed."""

import pytest
import torch

from xtalk.codes import Codes
from xtalk.interactions.norms import linear_parts, scale_change_norms
from xtalk.models.norms import NormWeights

B, K, L, D = 3, 4, 9, 6


def setting(centred):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    norm = NormWeights(1 + 0.5 * draw(D), draw(D) if centred else torch.zeros(D).double(), 1e-2, centred)
    latents = torch.stack([torch.randperm(L, generator=generator)[:K] for _ in range(B)])
    values = 0.2 + draw(B, K).abs()
    values[1, 2], values[2, 3] = 0, 0  # between others, and past the last that is used
    return norm, draw(B, D), draw(L, D), Codes(latents, values, L)


@pytest.mark.parametrize("elements", [1, 1 << 17])  # one token at a time, or all of them
@pytest.mark.parametrize("centred", [True, False], ids=["LayerNorm", "RMSNorm"])
def test_scale_change_terms_are_mixed_differences(centred, elements, monkeypatch):
    monkeypatch.setattr("xtalk.interactions.norms._ELEMENTS", elements)
    norm, x, d, codes = setting(centred)
    found = scale_change_norms(norm, x, d, codes)
    for b in range(B):
        for i in range(K):
            for j in range(K):
                one, other = (codes.values[b, slot] * d[codes.latents[b, slot]] for slot in (i, j))
                difference = norm(x[b]) - norm(x[b] - one) - norm(x[b] - other) + norm(x[b] - one - other)
                expected = torch.zeros(()) if i == j else difference.norm()
                assert float(found[b, i, j]) == pytest.approx(float(expected), abs=1e-7)
    assert found.max() > 0.1


@pytest.mark.parametrize("centred", [True, False], ids=["LayerNorm", "RMSNorm"])
def test_linear_parts_add_up_exactly(centred):
    norm, _, d, codes = setting(centred)
    x = (d[codes.latents] * codes.values[:, :, None]).sum(1)
    parts = linear_parts(norm, x, d, codes)
    torch.testing.assert_close(parts.sum(1) + norm.bias, norm(x))

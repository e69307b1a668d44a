"""Where pairs meet, against loops over tokens and neurons; and the layout of the map."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from xtalk.clustering import Clustering, Similarity
from xtalk.clustering.layout import lay_out
from xtalk.clustering.pair_details import pair_details
from xtalk.codes import Codes
from xtalk.interactions.contributions import MlpContributions
from xtalk.models.activation_functions import GELU_TANH, SILU
from xtalk.selftest.cases import B, K, L, N, random_mlp
from xtalk.selftest.interaction_loops import Case, interaction_charge, ranking


@pytest.mark.parametrize(("activation", "gated"), [(GELU_TANH, False), (SILU, True)])
def test_meetings_are_those_of_loops_over_tokens_and_neurons(activation, gated: bool):
    generator = torch.Generator().manual_seed(0)
    latents = torch.stack([torch.randperm(L, generator=generator)[:K].sort().values for _ in range(B)])
    values = 0.2 + torch.rand(B, K, generator=generator, dtype=torch.float64)
    codes_BL = torch.zeros(B, L, dtype=torch.float64).scatter(1, latents, values)
    cases = {}
    for block in (2, 5):
        decoder = torch.randn(L, 3, generator=generator, dtype=torch.float64)
        bias = torch.randn(3, generator=generator, dtype=torch.float64)
        mlp = random_mlp(activation, gated, generator)
        cases[block] = Case(decoder, bias, latents, values, mlp)

    def contributions(codes: Codes, places):
        assert places.tolist() == list(range(B))
        exact = Codes(codes.latents, codes.values.double(), codes.n_latents)
        for block, c in cases.items():
            yield block, MlpContributions(c.decoder_LD, c.bias_D, exact, c.mlp)

    pairs = [(int(i), int(j)) for i in range(L) for j in range(i + 1, L)]
    found = pair_details(pairs, sp.csr_array(codes_BL.numpy()), contributions, neurons=2 * N, places=B)
    assert [detail.latents for detail in found] == pairs
    for detail, (i, j) in zip(found, pairs, strict=True):
        amount = {}
        for block, case in cases.items():
            for b in range(B):
                slots = {int(latent): slot for slot, latent in enumerate(latents[b])}
                if i not in slots or j not in slots:
                    continue
                for k in range(N):
                    for one, other in ((i, j), (j, i)):
                        if ranking(case, b, k)[0] == slots[one]:
                            charge = float(interaction_charge(case, b, k, slots[other]))
                            amount[block, k, b] = amount.get((block, k, b), 0.0) + charge
        whole = sum(amount.values())
        for block, k, part in detail.neurons:
            expected = sum(a for (bb, kk, _), a in amount.items() if (bb, kk) == (block, k))
            assert part == pytest.approx(expected / whole, rel=1e-5)
        assert sum(part for *_, part in detail.neurons) == pytest.approx(1.0 if whole else 0.0)
        for place, total in detail.places:
            expected = sum(a for (*_, b), a in amount.items() if b == place)
            assert total == pytest.approx(expected, rel=1e-5)
        assert [p for *_, p in detail.neurons] == sorted((p for *_, p in detail.neurons), reverse=True)


def test_the_map_keeps_clusters_apart_and_every_latent_in_sight():
    rng = np.random.default_rng(0)
    labels_L = np.concatenate([np.repeat(np.arange(30), rng.integers(2, 25, 30)), np.full(10, -1)])
    values = rng.random((len(labels_L), len(labels_L)))
    values = np.triu(values, 1) + np.triu(values, 1).T
    similarity = Similarity(np.arange(len(labels_L)), sp.csr_array(values))
    placed = lay_out(similarity, Clustering(labels_L, True), seed=0)
    assert np.isfinite(placed).all()
    apart = np.linalg.norm(placed[:, None] - placed[None], axis=2) + 99 * np.eye(len(labels_L))
    assert apart.min() > 0.4
    for cluster in range(30):
        centre = placed[labels_L == cluster].mean(0)
        own = np.linalg.norm(placed[labels_L == cluster] - centre, axis=1).max()
        assert np.linalg.norm(placed[labels_L != cluster] - centre, axis=1).min() > own
    assert (lay_out(similarity, Clustering(labels_L, True), seed=0) == placed).all()

"""SCALAR's edge score: cases whose edges are known by hand, and a loop over tokens and latents."""

import pytest
import torch

import xtalk
from studies.results.edges import EdgeScore, MlpEdges, edge_score
from xtalk.models.activation_functions import GELU_TANH, RELU, SILU
from xtalk.models.mlp import MlpWeights
from xtalk.selftest.cases import random_mlp


def identity(D: int) -> xtalk.Crosscoder:
    """Each coordinate is a latent."""
    own = {"W_enc": torch.eye(D), "W_dec": torch.eye(D), "b_enc": torch.zeros(D), "b_dec": torch.zeros(D)}
    return xtalk.Crosscoder.from_tensors(**own, hook_names="blocks.0.ln2", architecture="relu")


def test_edges_known_by_hand():
    """A linear MLP that sends latent 0 to 0 and 1, and 1 to 2; latent 2 is never active."""
    W = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0], [5.0, 5.0, 5.0]])
    mlp = MlpWeights(W, torch.zeros(3), torch.eye(3), torch.zeros(3), RELU)
    n_BD = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    edges = MlpEdges(mlp, identity(3), identity(3), n_BD)
    expected = torch.tensor([[5.0**0.5, 20.0**0.5, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(edges.attribution_LM, expected)
    torch.testing.assert_close(edges.rebuilt(1), torch.tensor([[0.0, 2.0, 0.0], [0.0, 4.0, 0.0]]))
    torch.testing.assert_close(edges.rebuilt(3), mlp(n_BD))
    score = edge_score(edges, lambda first_BD, other_BD: float((first_BD - other_BD).square().sum()))
    assert score.edges == 3 and score.counts == (0, 1, 2, 3)
    assert score.costs == pytest.approx((5 + 20 + 9, 5 + 9, 5, 0))
    assert score.absolute == pytest.approx(34 / 2 + 14 + 5)
    assert score.relative == pytest.approx((34 / 2 + 14 + 5) / 3)


def test_fewer_edges_that_do_all_score_lower():
    few, many = (EdgeScore(4, (0, 1, 2, 4), costs) for costs in ((8, 0.5, 0.1, 0), (8, 6, 4, 0)))
    assert few.absolute < many.absolute and few.relative < many.relative


@pytest.mark.parametrize(("phi", "gated"), [(GELU_TANH, False), (SILU, True)])
def test_rebuilt_and_attribution_equal_loops(phi, gated: bool):
    generator = torch.Generator().manual_seed(4)
    D, N, L, M, B = 5, 7, 9, 8, 6
    mlp = random_mlp(phi, gated, generator, D, N, torch.float64)

    def dictionary(latents: int) -> xtalk.Crosscoder:
        W = torch.randn(D, latents, generator=generator).double()
        b = torch.randn(latents + D, generator=generator).double() / 4
        own = {"W_enc": W, "W_dec": W.T / 3, "b_enc": b[:latents], "b_dec": b[latents:]}
        name = "blocks.0.ln2"
        return xtalk.Crosscoder.from_tensors(**own, hook_names=name, architecture="jumprelu", threshold=0.3)

    of_input, of_output = dictionary(L), dictionary(M)
    n_BD = torch.randn(B, D, generator=generator).double()
    edges, f_BL = MlpEdges(mlp, of_input, of_output, n_BD), of_input.encode(n_BD)
    whole_BM = of_output.encode(mlp(of_input.decode(f_BL)))
    kept = int((edges.attribution_LM > 0).sum()) // 2
    g_BM = torch.zeros_like(whole_BM)
    for b in range(B):
        for j in range(M):
            if whole_BM[b, j] > 0:
                with_edge_L = torch.tensor([float(edges.rank_LM[i, j] < kept) for i in range(L)])
                g_BM[b, j] = of_output.encode(mlp(of_input.decode(f_BL[b] * with_edge_L)))[j]
    torch.testing.assert_close(edges.rebuilt(kept), of_output.decode(g_BM))

    squares_LM, few_BM = torch.zeros(L, M).double(), torch.zeros_like(whole_BM)
    for b in range(B):
        slopes_ML = torch.stack(
            [
                torch.autograd.functional.jacobian(
                    lambda f_L: mlp(of_input.decode(f_L)) @ of_output.W_enc[0], (step + 0.5) / 10 * f_BL[b]
                )
                for step in range(10)
            ]
        ).mean(0)
        found_LM = slopes_ML.T * f_BL[b][:, None] * (whole_BM[b] > 0)
        squares_LM += found_LM.square()
        for j in range(M):
            if whole_BM[b, j] > 0:
                of_few_L = f_BL[b] * (found_LM[:, j].abs() >= found_LM[:, j].abs().sort().values[-2])
                few_BM[b, j] = of_output.encode(mlp(of_input.decode(of_few_L)))[j]
    torch.testing.assert_close(edges.attribution_LM, squares_LM.sqrt())
    torch.testing.assert_close(edges.rebuilt_from_few(2), of_output.decode(few_BM))

import math
from dataclasses import replace

import pytest
import torch

from xtalk.models.activation_functions import GELU, RELU, SILU
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights


def random_mlp(activation, gated):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    gate = {"W_gate": draw(3, 5), "b_gate": draw(5)} if gated else {}
    return MlpWeights(draw(3, 5), draw(5), draw(5, 3), draw(3), activation, **gate)


SCALAR = {
    "relu": lambda h: max(h, 0.0),
    "gelu": lambda h: h * (1 + math.erf(h / math.sqrt(2))) / 2,
    "silu": lambda h: h / (1 + math.exp(-h)),
}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", [RELU, GELU, SILU], ids=lambda phi: phi.name)
def test_output_neuron_by_neuron(activation, gated):
    mlp, phi = random_mlp(activation, gated), SCALAR[activation.name]
    n = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    out = mlp(n)
    for b in range(2):
        for s in range(4):
            expected = mlp.b_out.clone()
            for k in range(5):
                value = float(n[b, s] @ mlp.W_in[:, k] + mlp.b_in[k])
                if gated:
                    neuron = phi(float(n[b, s] @ mlp.W_gate[:, k] + mlp.b_gate[k])) * value
                else:
                    neuron = phi(value)
                expected += neuron * mlp.W_out[k]
            torch.testing.assert_close(out[b, s], expected)
    assert mlp.gated == gated


@pytest.mark.parametrize("gated", [False, True])
def test_to_changes_every_tensor(gated):
    mlp = random_mlp(SILU, gated)
    n = torch.randn(2, 3)
    double = mlp.to(dtype=torch.float64)
    assert double.W_in.dtype == double.b_in.dtype == double.W_out.dtype == double.b_out.dtype == torch.float64
    assert double.activation is SILU
    torch.testing.assert_close(double(n.double()), mlp(n).double(), rtol=1e-5, atol=1e-5)


def test_rows_of_w_out_count_as_they_reach_the_residual_stream():
    mlp = random_mlp(SILU, gated=True)
    torch.testing.assert_close(mlp.output_norm_N, mlp.W_out.square().sum(1).sqrt())
    for centred in (False, True):
        norm = NormWeights(torch.tensor([3.0, -1.0, 0.5]), torch.ones(3), 0.0, centred)
        normed = replace(mlp, post_norm=norm).to(dtype=torch.float64)
        for k, row in enumerate(mlp.W_out.double()):
            row = row - row.mean() if centred else row
            assert float(normed.output_norm_N[k]) == pytest.approx(
                math.sqrt((3 * row[0]) ** 2 + row[1] ** 2 + (0.5 * row[2]) ** 2)
            )


def test_weights_whose_shapes_disagree_are_caught():
    mlp = random_mlp(RELU, gated=False)
    with pytest.raises(TypeError):
        MlpWeights(mlp.W_in, mlp.b_in, mlp.W_out.T, mlp.b_out, RELU)

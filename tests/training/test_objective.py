"""The training objective: each term has the value of its definition and reaches the optimiser at every depth.

In the published implementation the penalty of models of more than 4 blocks was detached: it trained nothing.
"""

from dataclasses import replace

import pytest
import torch
from training.tiny_training import D, RandomMlps, SparseSource, batches, crosscoder_config, scaling_of

from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.interactions.penalties import PENALTIES
from xtalk.models.mlp import MlpWeights
from xtalk.training.mlps import penalised_mlps
from xtalk.training.objective import Objective

NO_DEAD = torch.empty(0, dtype=torch.int64)


def problem(blocks: int, architecture: str = "batchtopk"):
    """A fresh crosscoder, a batch in scaled space, and the MLPs of a model of so many blocks."""
    source = SparseSource(blocks, sequences=100)
    scaling = scaling_of(source)
    config = crosscoder_config(source, architecture=architecture)
    crosscoder = Crosscoder(config)
    directions = torch.randn(crosscoder.W_dec.shape, generator=torch.Generator().manual_seed(0))
    crosscoder.initialise(scaling.apply(scaling.mean_PD), directions)
    stream = batches(source)
    x_BPD = scaling.apply(next(stream).activations)
    sample = [next(stream).activations for _ in range(8)]
    return crosscoder, x_BPD, penalised_mlps(config.hook_names, RandomMlps(), scaling, sample)


def gradients(crosscoder: Crosscoder, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    crosscoder.zero_grad()
    loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in crosscoder.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("blocks", [2, 5, 6])
@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_each_penalty_off_zero_changes_the_gradient_at_every_block(name: str, blocks: int):
    crosscoder, x_BPD, mlps = problem(blocks)
    assert len(mlps) == blocks
    without, _, _ = Objective([], {}, 0.0, 0.0, False)(crosscoder, x_BPD, NO_DEAD, 1.0)
    before = gradients(crosscoder, without)
    loss, _, parts = Objective(mlps, {name: 2.0}, 0.0, 0.0, False)(crosscoder, x_BPD, NO_DEAD, 0.5)
    after = gradients(crosscoder, loss)
    torch.testing.assert_close(loss, without + 0.5 * 2.0 * parts[name])
    assert parts[name] > 0
    for mlp in mlps:
        p = mlp.hook_index
        assert (after["W_dec"][:, p] - before["W_dec"][:, p]).abs().max() > 1e-6
    for parameter in ("W_enc", "b_enc"):  # through the codes' values
        assert (after[parameter] - before[parameter]).abs().max() > 1e-6
    no_mlp = [p for p in range(x_BPD.shape[1]) if p not in {mlp.hook_index for mlp in mlps}]
    torch.testing.assert_close(after["W_dec"][:, no_mlp], before["W_dec"][:, no_mlp])


@pytest.mark.parametrize("name", ["sum_minus_max", "keep_one", "full_sum"])
def test_the_penalty_is_that_of_the_models_own_units_by_loops(name: str):
    crosscoder, x_BPD, mlps = problem(2)
    _, codes, parts = Objective(mlps, {name: 1.0}, 0.0, 0.0, False)(crosscoder, x_BPD, NO_DEAD, 1.0)
    total = sum(by_loops(name, crosscoder, x_BPD, codes, mlp) for mlp in mlps)
    assert parts[name].item() == pytest.approx(total / len(mlps), rel=1e-4)


@torch.no_grad()
def by_loops(name: str, crosscoder: Crosscoder, x_BPD: torch.Tensor, codes: Codes, mlp) -> float:
    weights, total = mlp.weights, 0.0
    for b, x_PD in enumerate(x_BPD):
        directions = [crosscoder.W_dec[i, mlp.hook_index] / mlp.scale for i in codes.latents[b]]
        p_KN = torch.stack([f * (d @ weights.W_in) for f, d in zip(codes.values[b], directions, strict=True)])
        if name == "sum_minus_max":
            total += float((p_KN.abs().sum(0) - p_KN.abs().max(0).values).mean())
            continue
        chosen_N = p_KN.abs().argmax(0)
        kept_N = p_KN[chosen_N, torch.arange(len(chosen_N))] if name == "keep_one" else p_KN.sum(0)
        base_N = weights.b_in + crosscoder.b_dec[mlp.hook_index] / mlp.scale @ weights.W_in
        rebuilt_D = weights.activation(base_N + kept_N) @ weights.W_out + weights.b_out
        true_D = weights(x_PD[mlp.hook_index] / mlp.scale)
        total += float((true_D - rebuilt_D).square().sum()) / mlp.output_variance
    return total / len(x_BPD) * (1 if name == "sum_minus_max" else true_D.shape[0])


def test_reconstruction_is_the_squared_error_summed_over_hookpoints():
    crosscoder, x_BPD, _ = problem(2)
    loss, codes, parts = Objective([], {}, 0.0, 0.0, False)(crosscoder, x_BPD, NO_DEAD, 1.0)
    error_BPD = x_BPD - crosscoder.decode(codes)
    expected = sum(error_PD.square().sum().item() for error_PD in error_BPD) / len(x_BPD)
    assert loss.item() == parts["recon"].item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_counts_each_hookpoint_by_its_weight():
    crosscoder, x_BPD, _ = problem(2)
    weight_P = torch.arange(x_BPD.shape[1]).float()  # the first hookpoint counts nothing
    loss, codes, _ = Objective([], {}, 0.0, 0.0, False, weight_P)(crosscoder, x_BPD, NO_DEAD, 1.0)
    error_BPD = (x_BPD - crosscoder.decode(codes)).detach()
    expected = sum(p * error_BPD[:, p].square().sum().item() for p in range(x_BPD.shape[1])) / len(x_BPD)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    gradient_PD = gradients(crosscoder, loss)["b_dec"]
    torch.testing.assert_close(gradient_PD, -2 * weight_P[:, None] * error_BPD.mean(0))


@pytest.mark.parametrize("architecture", ["relu", "jumprelu"])
def test_sparsity_changes_the_gradient(architecture: str):
    crosscoder, x_BPD, _ = problem(2, architecture)
    losses = [Objective([], {}, 0.0, weight, False)(crosscoder, x_BPD, NO_DEAD, 1.0) for weight in (0.0, 3.0)]
    before, after = (gradients(crosscoder, loss) for loss, _, _ in losses)
    if architecture == "jumprelu":  # the L0 loss is about thresholds alone
        assert (after["threshold"] - before["threshold"]).abs().max() > 1e-6
        torch.testing.assert_close(after["W_enc"], before["W_enc"])
    else:
        codes, parts = losses[1][1], losses[1][2]
        norm_L = crosscoder.W_dec.flatten(1).norm(dim=1)
        expected = (codes.dense() * norm_L).sum(1).mean().item()
        assert parts["sparsity"].item() == pytest.approx(expected, rel=1e-5)
        assert (after["W_enc"] - before["W_enc"]).abs().max() > 1e-6


def test_bfloat16_changes_products_and_little_else():
    crosscoder, x_BPD, mlps = problem(2, "relu")  # others only choose by such products
    parts = [
        Objective(mlps, {"keep_one": 1.0}, 0.0, 0.0, bfloat16)(crosscoder, x_BPD, NO_DEAD, 1.0)[2]
        for bfloat16 in (False, True)
    ]
    for name, value in parts[0].items():
        assert value != parts[1][name]
        assert value.item() == pytest.approx(parts[1][name].item(), rel=0.1)
        assert parts[1][name].dtype == torch.float32


def test_an_output_that_varies_by_rounding_alone_is_refused():
    class Silent(RandomMlps):
        def mlp_weights(self, block: int) -> MlpWeights:
            mlp = super().mlp_weights(block)
            return replace(mlp, W_out=0 * mlp.W_out, b_out=1e3 * mlp.b_out)

    sample = list(torch.randn(3, 50, 1, D).unbind(0))
    with pytest.raises(XtalkError, match=r"MLP at blocks\.0\.ln2 does not vary"):
        penalised_mlps(["blocks.0.ln2"], Silent(), scaling_of(), sample)


def test_penalised_mlps_of_one_and_of_several_models():
    source = SparseSource(2, sequences=100)
    scaling = scaling_of(source)
    sample = [next(batches(source)).activations]
    [first, second] = penalised_mlps(source.names, RandomMlps(), scaling, iter(sample))
    assert [source.names[mlp.hook_index] for mlp in (first, second)] == ["blocks.0.ln2", "blocks.1.ln2"]
    assert second.scale == pytest.approx(float(scaling.factor_P[second.hook_index]))
    output_BD = RandomMlps().mlp_weights(1)(sample[0][:, second.hook_index])
    variance = (output_BD - output_BD.mean(0)).square().sum(1).mean()
    assert second.output_variance == pytest.approx(float(variance), rel=1e-4)

    class Shifted(RandomMlps):
        def mlp_weights(self, block: int):
            return super().mlp_weights(block + 1)

    names = [
        f"{'a' if p < 4 else 'org/b'}/blocks.0.{name.rpartition('.')[2]}"
        for p, name in enumerate(source.names)
    ]
    models = {"a": RandomMlps(), "org/b": Shifted()}
    pair = penalised_mlps(names, models, scaling, iter(sample))
    for mlp, same in zip(pair, (first, second), strict=True):
        assert torch.equal(mlp.weights.W_in, same.weights.W_in)
        assert mlp.output_variance == same.output_variance
    with pytest.raises(XtalkError, match=r"org/b/blocks.0.ln2 is of none of the models given: a"):
        penalised_mlps(names, {"a": RandomMlps()}, scaling, iter(sample))


def test_penalties_without_an_mlp_input_are_refused():
    with pytest.raises(XtalkError, match=r"there is none in blocks.0.ln1; add such as blocks.0.ln2"):
        penalised_mlps(["blocks.0.ln1"], RandomMlps(), scaling_of(), iter([]))

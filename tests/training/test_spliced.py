"""Penalties that run the model on with a rebuilt MLP output, against a forward of the whole model."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny_models import BLOCKS, D_MODEL, tiny_model, tiny_tokens

from xtalk.activations import ActivationBatches, Harvest, measure_scaling
from xtalk.activations.stream import ActivationBatch
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.penalties import FEW_HOT
from xtalk.models.hookpoints import Hookpoint, paper_hookpoints
from xtalk.selftest.divergence import divergence
from xtalk.training.config import TrainingConfig
from xtalk.training.loss_metric import LossMetric
from xtalk.training.mlps import penalised_mlps, spliced_mlps, spliced_together
from xtalk.training.objective import Objective
from xtalk.training.spliced import SPLICES, SplicedMlp, measure_spliced_mlps, places_of, true_run
from xtalk.training.train import train_crosscoder

LENGTH = 7
SEQUENCES = token_sequences(tiny_tokens(40, LENGTH).numpy().astype("int32"), np.zeros((40, LENGTH), "int32"))
ALONE = [name for name, splice in SPLICES.items() if not splice.together]
A, B, C = ("a", 1), ("a", 2), ("c", None)
NO_DEAD = torch.empty(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neo")


def some_tokens(count: int = 11) -> ActivationBatch:
    """Tokens here and there in three sequences, in no order."""
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randperm(3 * LENGTH, generator=generator)[:count]
    numbers = torch.tensor([4, 9, 2])[chosen // LENGTH]
    tokens = torch.from_numpy(SEQUENCES.tokens)[numbers, chosen % LENGTH].long()
    return ActivationBatch(torch.zeros(count, 1, 1), tokens, numbers, chosen % LENGTH)


def reference_divergence(model, batch: ActivationBatch, block: int, output_BD, mid_BD=None):
    return divergence(model, SEQUENCES.tokens, batch, block, output_BD, mid_BD)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_divergence_behind_a_norm_equals_that_of_the_whole_model(block: int):
    model, batch = tiny_model("gemma2"), some_tokens()
    generator = torch.Generator().manual_seed(block)
    mlp = SplicedMlp(model, block, model.mlp_weights(block), torch.zeros(D_MODEL), ablated=0.25)
    output_BD = torch.randn(11, D_MODEL, generator=generator).requires_grad_()
    found = mlp.divergences(true_run(model, [block], places_of(batch, SEQUENCES)), {A: output_BD}, {})[A]
    expected = reference_divergence(model, batch, block, output_BD) * D_MODEL / 0.25
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    fast, slow = (torch.autograd.grad(kl, output_BD)[0] for kl in (found, expected))
    torch.testing.assert_close(fast, slow.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_divergence_and_gradient_equal_those_of_the_whole_model(model, block: int):
    batch = some_tokens()
    generator = torch.Generator().manual_seed(block)
    mlp = SplicedMlp(model, block, model.mlp_weights(block), torch.zeros(D_MODEL), ablated=0.25)
    output_BD, other_BD, mid_BD = torch.randn(3, 11, D_MODEL, generator=generator).requires_grad_().unbind(0)
    run = true_run(model, range(BLOCKS), places_of(batch, SEQUENCES))
    found = mlp.divergences(run, {A: output_BD, B: other_BD, C: output_BD}, {C: mid_BD})
    slow = {
        A: reference_divergence(model, batch, block, output_BD),
        B: reference_divergence(model, batch, block, other_BD),
        C: reference_divergence(model, batch, block, output_BD, mid_BD),
    }
    for name, kl in slow.items():
        expected = kl * D_MODEL / 0.25
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-4, atol=0)
        variables = (output_BD, mid_BD) if name == C else (other_BD if name == B else output_BD,)
        fast = torch.autograd.grad(found[name], variables, retain_graph=True)
        for got, want in zip(fast, torch.autograd.grad(expected, variables, retain_graph=True), strict=True):
            torch.testing.assert_close(got, want.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("skip", [0, 1])
def test_the_true_output_costs_nothing_and_the_mean_output_d(model, skip: int):
    """The mean over the tokens that count, put in the place of theirs alone."""
    sample = torch.from_numpy(SEQUENCES.tokens[:12]).long()
    mlp = measure_spliced_mlps(model, [0, 1], sample.split(4), Counted(skip))[1]
    batch = next(ActivationBatches(Harvest(model, SEQUENCES, [Hookpoint(1, "ln2")]), 21, 0, 3))
    output_BD = model.mlp_weights(1)(batch.activations[:, 0])
    run = true_run(model, [1], places_of(batch, SEQUENCES))
    assert mlp.divergences(run, {A: output_BD}, {})[A].item() == pytest.approx(0, abs=1e-4)
    numbers = np.arange(12).repeat(LENGTH - skip)
    positions = np.tile(np.arange(skip, LENGTH), 12)
    everywhere = ActivationBatch(
        torch.zeros(len(numbers), 1, 1),
        sample[:, skip:].flatten(),
        torch.from_numpy(numbers),
        torch.from_numpy(positions),
    )
    n_BD = model.capture(sample, (Hookpoint(1, "ln2"),))[:, skip:].flatten(0, 2)
    mean_BD = model.mlp_weights(1)(n_BD).mean(0).expand(len(numbers), -1)
    run = true_run(model, [1], places_of(everywhere, SEQUENCES))
    cost = mlp.divergences(run, {A: mean_BD}, {})[A]
    assert cost.item() == pytest.approx(D_MODEL, rel=1e-3)


def problem(model, penalties: dict[str, float], hook_names=None):
    """An objective, a crosscoder, a batch in scaled space and its places."""
    hookpoints = [model.hookpoint(name) for name in hook_names] if hook_names else paper_hookpoints(BLOCKS)
    stream = ActivationBatches(Harvest(model, SEQUENCES, hookpoints), 2 * LENGTH, 0, 2)
    scaling = measure_scaling(stream, 100)
    names = stream.source.identity.hookpoints
    crosscoder = Crosscoder(CrosscoderConfig(d_in=D_MODEL, d_sae=29, k=5, hook_names=names))
    generator = torch.Generator().manual_seed(0)
    crosscoder.initialise(
        scaling.apply(scaling.mean_PD), torch.randn(crosscoder.W_dec.shape, generator=generator)
    )
    batch = next(stream)
    metric = LossMetric({Hookpoint(block, "ln2"): 2 * torch.eye(D_MODEL) for block in range(BLOCKS)})
    mlps = penalised_mlps(names, model, scaling, [batch.activations], metric)
    sample = torch.from_numpy(SEQUENCES.tokens[:6]).long().split(3)
    mlps = spliced_mlps(mlps, names, model, scaling, sample, penalties)
    together = spliced_together(mlps, sample, penalties)
    objective = Objective(mlps, penalties, aux=0.0, sparsity=0.0, bfloat16=False, together=together)
    return objective, crosscoder, scaling.apply(batch.activations), batch


def own_output(model, batch: ActivationBatch, names, block: int):
    """What the model's own MLP puts out at a batch's tokens."""
    return model.mlp_weights(block)(batch.activations[:, names.index(f"blocks.{block}.ln2")])


@pytest.mark.parametrize("name", ALONE)
def test_its_value_is_the_mean_over_mlps(model, name: str):
    """In the model's own output space, though the local penalties count in a metric."""
    objective, crosscoder, x_BPD, batch = problem(model, {name: 2.0})
    loss, codes, parts = objective(crosscoder, x_BPD, NO_DEAD, 0.5, places_of(batch, SEQUENCES))
    expected, names = 0.0, crosscoder.config.hook_names
    for block, mlp in enumerate(objective.mlps):
        p, s = mlp.hook_index, mlp.scale
        plain = MlpContributions(
            crosscoder.W_dec[:, p] / s, crosscoder.b_dec[p] / s, codes, model.mlp_weights(block)
        )
        numbers = {"keep_one": (1,), "full_sum": (None,), "keep_few": FEW_HOT, "resid_mi": ("model",)}[
            name[:8]
        ]
        mid_BD = None
        if "resid" in name:
            mid_p = crosscoder.hook_index(f"blocks.{block}.resid_mid")
            factor = (x_BPD[:, mid_p] / batch.activations[:, mid_p]).mean()
            mid_BD = crosscoder.decode(codes)[:, mid_p] / factor
        assert mlp.spliced is not None
        for m in numbers:
            output_BD = (
                plain.output(plain.keep(m)) if m != "model" else own_output(model, batch, names, block)
            )
            kl = reference_divergence(model, batch, block, output_BD, mid_BD)
            expected += kl * D_MODEL / mlp.spliced.ablated / BLOCKS / len(numbers)
    torch.testing.assert_close(parts[name].double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loss, parts["recon"] + 0.5 * 2.0 * parts[name])


@pytest.mark.parametrize("name", ALONE)
def test_moving_a_coefficient_off_zero_moves_every_block_s_gradient(model, name: str):
    moved: dict[str, Any] = {}
    for weight in (0.0, 1.0):
        objective, crosscoder, x_BPD, batch = problem(model, {"keep_one": 1.0, name: weight or 1e-12})
        loss, _, _ = objective(crosscoder, x_BPD, NO_DEAD, 1.0, places_of(batch, SEQUENCES))
        loss.backward()
        moved[str(weight)] = crosscoder.W_dec.grad
    change_P = (moved["1.0"] - moved["0.0"]).abs().amax(dim=(0, 2))
    names = crosscoder.config.hook_names
    sites = {"resid_mid_kl": ("resid_mid",)}.get(name, ("ln2", "resid_mid") if "_resid" in name else ("ln2",))
    expected = {f"blocks.{block}.{site}" for block in range(BLOCKS) for site in sites}
    assert {n for n, change in zip(names, change_P, strict=True) if change > 1e-4} == expected


TEXT = token_sequences(
    tiny_tokens(900, LENGTH, seed=5).numpy().astype("int32"), np.zeros((900, LENGTH), "int32")
)


ONE = "keep_one_kl", "full_sum_kl"


def trained(model, weight: float, folder=None, stop=None, sample=False, penalties=ONE) -> Crosscoder:
    """60 steps with penalties that splice the model's own resid_mid, the second at half the weight."""
    stream = ActivationBatches(Harvest(model, TEXT, paper_hookpoints(BLOCKS)), 4 * LENGTH, 0, 64, epochs=4)
    names = stream.source.identity.hookpoints
    training = TrainingConfig(
        steps=60,
        batch_tokens=4 * LENGTH,
        lr=6e-3,
        warmup_steps=5,
        penalties={name: weight / (1 + place) for place, name in enumerate(penalties)},
        penalty_warmup=0.0,
        splice_from=0.0,
        sample_blocks=sample,
        bfloat16=False,
        checkpoint_every=7,
    )

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    return train_crosscoder(
        CrosscoderConfig(d_in=D_MODEL, d_sae=31, k=6, hook_names=names, architecture="topk"),
        training,
        stream,
        model,
        measure_scaling(stream, 200),
        checkpoint_folder=folder,
        progress=progress,
    ).crosscoder


@torch.no_grad()
def keep_one_divergence(model, crosscoder: Crosscoder) -> float:
    """Mean over blocks, on text that was not trained on, in units of the ablated MLP's, times D."""
    stream = ActivationBatches(Harvest(model, SEQUENCES, paper_hookpoints(BLOCKS)), 40 * LENGTH, 0, 40)
    batch = next(stream)
    codes, total = crosscoder.encode_sparse(batch.activations), 0.0
    for block in range(BLOCKS):
        p = crosscoder.hook_index(f"blocks.{block}.ln2")
        mlp = MlpContributions(crosscoder.W_dec[:, p], crosscoder.b_dec[p], codes, model.mlp_weights(block))
        spliced = measure_spliced_mlps(model, [block], [torch.from_numpy(SEQUENCES.tokens).long()])[block]
        outputs = {A: mlp.output(mlp.dominant)}
        run = true_run(model, [block], places_of(batch, SEQUENCES))
        total += float(spliced.divergences(run, outputs, {})[A])
    return total / BLOCKS


@pytest.mark.parametrize(("sample", "part"), [(False, 0.7), (True, 0.85)])
def test_training_with_it_lowers_it_and_resumes_bit_for_bit(model, tmp_path, sample: bool, part: float):
    whole = trained(model, 200.0, sample=sample)
    assert keep_one_divergence(model, whole) < part * keep_one_divergence(model, trained(model, 1e-9))
    with pytest.raises(KeyboardInterrupt):
        trained(model, 200.0, tmp_path, stop=24, sample=sample)
    assert torch.equal(whole.W_dec, trained(model, 200.0, tmp_path, sample=sample).W_dec)


def test_training_for_any_number_kept_draws_one_in_each_step_and_resumes_bit_for_bit(model, tmp_path):
    few = "keep_few", "keep_few_kl"
    whole = trained(model, 200.0, penalties=few)
    assert keep_one_divergence(model, whole) < 0.85 * keep_one_divergence(model, trained(model, 1e-9))
    with pytest.raises(KeyboardInterrupt):
        trained(model, 200.0, tmp_path, stop=24, penalties=few)
    assert torch.equal(whole.W_dec, trained(model, 200.0, tmp_path, penalties=few).W_dec)


def test_what_it_needs_is_asked_for(model):
    with pytest.raises(XtalkError, match=r"keep_one_kl_resid needs the hookpoint blocks\.0\.resid_mid"):
        problem(model, {"keep_one_kl_resid": 1.0}, ["blocks.0.ln2"])

    class OnlyMlps:
        def mlp_weights(self, block: int):
            return model.mlp_weights(block)

    objective, *_ = problem(model, {"keep_one_kl": 1.0})
    names = tuple(map(str, paper_hookpoints(BLOCKS)))
    scaling = measure_scaling(ActivationBatches(Harvest(model, SEQUENCES, paper_hookpoints(BLOCKS)), 14, 0))
    bare = [replace(mlp, spliced=None) for mlp in objective.mlps]
    with pytest.raises(XtalkError, match=r"keep_one_kl.* run the model on; give a LanguageModel"):
        spliced_mlps(bare, names, OnlyMlps(), scaling, [], ["keep_one_kl"])

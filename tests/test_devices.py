"""What runs on a device gives what it gives on the CPU; the device is XTALK_TEST_DEVICE, or a stand-in."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out, random_crosscoder
from reference.tiny_models import tiny_model
from training.tiny_training import (
    RandomMlps,
    SparseSource,
    batches,
    crosscoder_config,
    scaling_of,
    training_config,
)

from xtalk.activations import ActivationStream, measure_scaling
from xtalk.codes import Codes
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.nonlinearities import above_threshold, batch_topk, topk
from xtalk.crosscoder.pre_activations import PreActivations
from xtalk.evaluation.baselines import mean_mlp_outputs, measure_baselines
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.evaluation.validation import ValidationConfig, validate_interactions
from xtalk.interactions.pairs import PairInteractions
from xtalk.interactions.penalties import PENALTIES, MlpTarget
from xtalk.models.activation_functions import GELU
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.products import affine_dots, codes_times_rows, dots
from xtalk.reading.pairs import measure_pairs
from xtalk.selftest.cases import contributions, random_case
from xtalk.training import config
from xtalk.training.train import train_crosscoder

pytestmark = pytest.mark.device
EXACT = {"rtol": 1e-9, "atol": 1e-9}  # of float64: sums in another order


def on(device: torch.device, model: LanguageModel) -> LanguageModel:
    model.hf.to(device)
    return model


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")


def both(work, cpu: torch.device, device: torch.device, **close) -> None:
    """The tensors that `work` gives on the CPU and on the device are near each other."""
    for expected, found in zip(work(cpu), work(device), strict=True):
        assert found.device.type == device.type
        torch.testing.assert_close(found.cpu(), expected, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products(dtype: torch.dtype, cpu, device):
    generator = torch.Generator().manual_seed(0)
    B, K, L, X = 300, 6, 80, 19
    latents = torch.rand(B, L - 1, generator=generator).topk(K, dim=1).indices
    values, rows, x, bias = (
        torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((B, K), (L, X), (B, X), (L,))
    )

    def work(place: torch.device):
        leaves = [tensor.to(place).requires_grad_() for tensor in (values, rows, x, bias)]
        f_BK, rows_LX, x_BX, bias_L = leaves
        at, used = latents.to(place), torch.arange(K, device=place) < torch.arange(B, device=place)[:, None]
        decoded = codes_times_rows(Codes(at, f_BK, L), rows_LX)
        known = dots(x_BX, rows_LX, at, used) + bias_L.detach()[at] * used
        encoded = affine_dots(known, x_BX, rows_LX, bias_L, at, used)
        loss = (decoded * x_BX.detach()).sum() + encoded.square().sum()
        return decoded.detach(), encoded.detach(), *torch.autograd.grad(loss, leaves)

    both(work, cpu, device, **({"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else EXACT))


def test_the_largest_pre_activations(cpu, device):
    pre = torch.randn(200, 700, generator=torch.Generator().manual_seed(0))
    bound = torch.rand(700, generator=torch.Generator().manual_seed(1))

    def work(place: torch.device):
        given = PreActivations.of(pre.to(place))
        codes = topk(given, 9), batch_topk(given, 9), above_threshold(given, bound.to(place), 40)
        return [one.dense() for one in codes]

    both(work, cpu, device)


@pytest.mark.parametrize("gated", [False, True])
def test_dominant_contributions_and_pairs(gated: bool, cpu, device):
    case = random_case(GELU, gated)

    def work(place: torch.device):
        made = contributions(moved(case, place))
        yield from (made.top_slots(3), made.dominant_BN, *made.keep(2), *made.totals)

    both(work, cpu, device)
    documents_B = np.zeros(len(case.values_BK), np.int64)

    def pairs(place: torch.device) -> np.ndarray:
        added = PairInteractions(len(case.decoder_LD), ["0"])
        added.add({"0": contributions(moved(case, place))}, documents_B)
        return added.result().interactions().toarray()

    np.testing.assert_allclose(pairs(device), pairs(cpu))


def moved(case, place: torch.device, leaf: bool = False):
    to = {name: getattr(case, name).to(place) for name in ("decoder_LD", "bias_D", "latents_BK", "values_BK")}
    if leaf:
        to |= {name: to[name].requires_grad_() for name in ("decoder_LD", "bias_D", "values_BK")}
    return case._replace(**to, mlp=case.mlp.to(place))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("autocast", [False, True])
def test_penalties(name: str, gated: bool, autocast: bool, cpu, device):
    """Under autocast, where products are rough, they are near those without."""
    case = random_case(GELU, gated, dtype=torch.float32 if autocast else torch.float64)
    true_BD = torch.linspace(-1, 1, case.values_BK.shape[0])[:, None].to(case.bias_D) + case.bias_D

    def work(place: torch.device):
        leaf = moved(case, place, leaf=True)
        with torch.autocast(place.type, torch.bfloat16, enabled=autocast and place == device):
            value = PENALTIES[name](contributions(leaf), MlpTarget(true_BD.to(place), 3.0))
        grads = torch.autograd.grad(value, [leaf.decoder_LD, leaf.values_BK])
        return value.detach().to(case.bias_D.dtype), *grads

    if not autocast:
        both(work, cpu, device, **EXACT)
        return
    for expected, found in zip(work(cpu), work(device), strict=True):
        assert (found.cpu() - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize(
    ("architecture", "bfloat16"), [("batchtopk", False), ("batchtopk", True), ("jumprelu", False)]
)
def test_training(architecture: str, bfloat16: bool, device, tmp_path):
    """With penalties and the auxiliary loss, stopped and gone on."""
    training = training_config(
        steps=8,
        penalties={"sum_minus_max": 1.0, "keep_one": 0.5, "relative": 0.5},
        sparsity=1.0 if architecture in ("jumprelu", "relu") else 0.0,
        bfloat16=bfloat16,
        dead_after_tokens=64,
        checkpoint_every=3,
    )
    given = crosscoder_config(architecture=architecture), training, batches(), RandomMlps()
    expected = train_crosscoder(*given, scaling_of()).crosscoder

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stopped

    def train(progress=lambda done, total: None):
        source = SparseSource()
        read = source.read
        source.read = lambda rows: (part.to(device) for part in read(rows))
        given = crosscoder_config(architecture=architecture), training, batches(source), RandomMlps()
        scaling = scaling_of().to(device)
        return train_crosscoder(*given, scaling, checkpoint_folder=tmp_path, progress=progress)

    with pytest.raises(Stopped):
        train(stop)
    found = train().crosscoder
    for name, weight in expected.state_dict().items():
        off = (found.state_dict()[name].cpu() - weight).norm() / weight.norm().clamp(min=1e-6)
        assert off <= (0.2 if bfloat16 else 1e-3), (name, float(off))


@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "gemma2"])
def test_models_and_penalties_that_run_them_on(kind: str, cpu, device, monkeypatch):
    monkeypatch.setattr(config, "_CALIBRATION_TOKENS", 64)
    text = held_out(24, 12)
    tokens = torch.from_numpy(text.tokens[:3]).long()

    def model_on(place: torch.device) -> LanguageModel:
        return on(place, tiny_model(kind))

    def read(place: torch.device):
        model = model_on(place)
        post = model.capture(tokens, [Hookpoint(1, "resid_post")])[:, :, 0]
        yield model.capture(tokens, model.hookpoints())
        yield from (model.continue_from(1, post, tokens), model.mlp_weights(1)(post[0]))

    both(read, cpu, device, rtol=1e-4, atol=1e-4)

    def train(place: torch.device):
        model = model_on(place)
        names = ("blocks.1.resid_mid", "blocks.1.ln2", "blocks.2.ln2")
        made = CrosscoderConfig(d_in=model.d_model, d_sae=24, k=4, hook_names=names[:2])
        points = [model.hookpoint(name) for name in names[:2]]
        stream = ActivationStream(model, text, points, batch_tokens=24, seed=0, buffer_sequences=4)
        penalties = {"keep_one_kl": 1.0, "full_sum_kl_resid": 1.0, "full_sum": 1.0}
        training = training_config(steps=4, batch_tokens=24, penalties=penalties, splice_from=0.0)
        trained = train_crosscoder(made, training, stream, model, measure_scaling(stream, 48))
        return [weight for _, weight in sorted(trained.crosscoder.state_dict().items())]

    both(train, cpu, device, rtol=2e-3, atol=2e-3)


def numbers(found) -> list[float]:
    """All numbers in a record, in order."""
    match found:
        case bool() | str() | None:
            return []
        case int() | float() | np.number():
            return [float(found)]
        case np.ndarray() | torch.Tensor():
            return found.reshape(-1).tolist()
        case Mapping():
            return [number for value in found.values() for number in numbers(value)]
        case list() | tuple():
            return [number for value in found for number in numbers(value)]
    return [number for field in fields(found) for number in numbers(getattr(found, field.name))]


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_evaluation_pairs_and_validation(kind: str, cpu, device):
    text = held_out(24, 12)

    def figures(place: torch.device) -> list[float]:
        model = on(place, tiny_model(kind))
        crosscoder = random_crosscoder(model).to(place)
        means = mean_mlp_outputs(model, text, text.tokens.size, tuple(range(model.n_blocks)))
        baselines = measure_baselines(model, text, means)
        factor_P = torch.ones(len(crosscoder.config.hook_names), device=place)
        evaluation = evaluate_crosscoder(
            model, crosscoder, factor_P, text, baselines, resamples=100, seed=0, keep_error=True
        )
        matrices = measure_pairs(model, crosscoder, text, ("mlp", "norm", "qk", "ov")).matrices.values()
        wanted = ValidationConfig(pairs=12, loss_pairs=4, occurrences=200, loss_occurrences=2, resamples=50)
        return [
            *numbers(evaluation),
            *(matrix.total() for matrix in matrices),
            *numbers(validate_interactions(model, crosscoder, text, wanted, seed=0)),
        ]

    assert figures(device) == pytest.approx(figures(cpu), rel=2e-2, abs=2e-2, nan_ok=True)

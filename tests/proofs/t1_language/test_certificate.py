"""Features of a language model's last MLP, their training, and certificates of its cross-entropy."""

from itertools import pairwise

import pytest
import torch
from reference.tiny_models import tiny_model
from torch.nn import functional as F

from xtalk.errors import XtalkError
from xtalk.models.activation_functions import GELU_TANH
from xtalk.models.language_model import load_model
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights
from xtalk.proofs.t1_language.certificate import certify_loss, explanation
from xtalk.proofs.t1_language.tail import LanguageTail, resid_mid, tail_of
from xtalk.proofs.t1_language.training import FeatureMlp, LanguageTraining, one_feature_each, train_mlp

T, D, N, V = 24, 5, 11, 7


def random_tail(seed: int = 0) -> tuple[LanguageTail, torch.Tensor, torch.Tensor]:
    """A tail, activations, and the tokens that it thinks likeliest there."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    mlp = MlpWeights(normal(D, N), normal(N), normal(N, D), normal(D), GELU_TANH)
    norms = [NormWeights(1 + 0.3 * normal(D), 0.3 * normal(D), 1e-5, True) for _ in range(2)]
    tail = LanguageTail(norms[0], mlp, norms[1], normal(D, V))
    x_TD = normal(T, D)
    return tail, x_TD, tail.logits(x_TD, mlp(tail.norm_in(x_TD))).argmax(1)


def mean_loss(tail, mlp, x_TD, targets_T) -> float:
    return tail.losses(x_TD, targets_T, mlp.to(dtype=torch.float64)).mean().item()


def features(tail, x_TD, count: int) -> FeatureMlp:
    return one_feature_each(tail.mlp, tail.norm_in(x_TD), count, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["gpt_neo", "gpt2"])
def test_tails_give_the_models_logits(kind):
    model = tiny_model(kind)
    tokens_nS = torch.randint(model.vocabulary, (3, 9), generator=torch.Generator().manual_seed(0))
    x_TD, targets_T = resid_mid(model, tokens_nS)
    tail = tail_of(model)
    logits_TV = model.logits(tokens_nS)[:, :-1].flatten(0, 1)
    torch.testing.assert_close(
        tail.logits(x_TD, tail.mlp(tail.norm_in(x_TD))), logits_TV, atol=1e-4, rtol=1e-4
    )
    expected = F.cross_entropy(logits_TV, tokens_nS[:, 1:].flatten()).item()
    assert mean_loss(tail, tail.mlp, x_TD, targets_T) == pytest.approx(expected, abs=1e-5)


def test_models_with_another_tail_are_refused():
    for kind in ("llama", "gpt_neox"):
        with pytest.raises(XtalkError, match="theorem T1 language takes"):
            tail_of(tiny_model(kind))
    for eps in (1e-6, 1.5e-5):
        model = tiny_model("gpt2")
        model.hf.transformer.ln_f.eps = eps
        with pytest.raises(XtalkError, match="epsilons are not one whole number"):
            tail_of(model)


def test_the_embedded_model_has_a_tail():
    tail = tail_of(load_model("embedded"))
    assert tail.unembed.shape == (128, 2048) and tail.norm_in.eps == 1e-5


def test_every_neuron_reads_its_feature_and_nothing_else():
    tail, x_TD, _ = random_tail()
    for count in (3, N):
        mlp = features(tail, x_TD, count)
        n_TD = tail.norm_in(x_TD)
        torch.testing.assert_close(mlp(n_TD), mlp.weights()(n_TD), atol=1e-5, rtol=1e-5)
        assert len(mlp.directions) == count == len(mlp.features.unique())
        cosine_N = F.cosine_similarity(mlp.weights().W_in.T, mlp.directions[mlp.features]).abs()
        torch.testing.assert_close(cosine_N, torch.ones(N))
    torch.testing.assert_close(mlp(n_TD), tail.mlp(n_TD))


def test_features_are_projections_in_the_metric_of_the_inputs():
    """What a neuron no longer reads is, over the inputs, uncorrelated with what it still reads."""
    tail, x_TD, _ = random_tail()
    n_TD = tail.norm_in(x_TD)
    mlp = features(tail, x_TD, 3)
    read_TN, kept_TN = (n_TD - n_TD.mean(0)) @ tail.mlp.W_in, (n_TD - n_TD.mean(0)) @ mlp.weights().W_in
    assert ((read_TN - kept_TN) * kept_TN).mean(0).abs().max() < 1e-3
    assert (read_TN - kept_TN).var(0).sum() < 0.8 * read_TN.var(0).sum()


def test_training_brings_the_students_predictions_to_the_tails():
    tail, x_TD, _ = random_tail()
    trained = []
    for _ in range(2):
        mlp = features(tail, x_TD, 4)
        before = F.cross_entropy(tail.logits(x_TD, mlp(tail.norm_in(x_TD))), likely(tail, x_TD)).item()
        train_mlp(mlp, tail, x_TD, LanguageTraining(steps=60, batch=16, lr=1e-2))
        trained.append(mlp)
    after = F.cross_entropy(tail.logits(x_TD, mlp(tail.norm_in(x_TD))), likely(tail, x_TD)).item()
    floor = F.cross_entropy(tail.logits(x_TD, tail.mlp(tail.norm_in(x_TD))), likely(tail, x_TD)).item()
    assert floor < after < floor + 0.5 * (before - floor)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in trained), strict=True))


def likely(tail, x_TD) -> torch.Tensor:
    return tail.logits(x_TD, tail.mlp(tail.norm_in(x_TD))).softmax(1)


def test_certificates_claim_no_less_than_the_loss_and_little_more():
    tail, x_TD, targets_T = random_tail()
    exact = certify_loss(tail, None, x_TD, targets_T)
    truth = mean_loss(tail, tail.mlp, x_TD, targets_T)
    assert truth * 1e6 <= exact.claim["micronats"] <= truth * 1e6 + 1.01
    mlp = features(tail, x_TD, 4)
    truth = mean_loss(tail, mlp.weights(), x_TD, targets_T)
    few, many = (certify_loss(tail, mlp, x_TD, targets_T, knots=knots) for knots in (16, 1024))
    assert truth * 1e6 <= many.claim["micronats"] < few.claim["micronats"]
    assert many.claim["micronats"] < truth * 1e6 + 1000
    assert few.verdict.length.evaluations < many.verdict.length.evaluations


def test_features_of_another_network_are_charged_for_its_crosstalk():
    tail, x_TD, targets_T = random_tail()
    mlp = features(tail, x_TD, 4)
    own = certify_loss(tail, mlp, x_TD, targets_T, knots=256)
    after = certify_loss(tail, mlp, x_TD, targets_T, network=tail.mlp, knots=256)
    truth = mean_loss(tail, tail.mlp, x_TD, targets_T)
    assert after.claim["micronats"] > truth * 1e6 + 100_000
    assert own.spec["weights"] != after.spec["weights"]


def test_knots_hold_all_readings_and_follow_the_curvature():
    tail, x_TD, _ = random_tail()
    mlp = features(tail, x_TD, 4)
    n_TD = tail.norm_in(x_TD).double()
    advice = explanation(mlp, n_TD, 50)
    readings_TF = n_TD @ mlp.directions.double().T * 2.0 ** advice["bits"]
    for i, knots in enumerate(advice["knots"]):
        assert knots[0] < readings_TF[:, i].min() and readings_TF[:, i].max() < knots[-1]
        assert all(low < high for low, high in pairwise(knots))
    assert 150 <= sum(map(len, advice["knots"])) <= 250

"""Fine-tuning a tiny model: it learns what is labelled and only that, and is seeded by what it is given."""

import copy

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY, tiny_model
from torch.nn import functional as F

from xtalk.data.tokens import UNLABELLED
from xtalk.models.language_model import LanguageModel
from xtalk.training.fine_tuning import FineTuning, fine_tune, labelled_loss, mean_loss

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, VOCABULARY, (24, 9))
LABELS = np.where(np.arange(9) < 6, TOKENS, UNLABELLED)


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return tiny_model("gpt2")


def loss(network, labels) -> float:
    with torch.no_grad():
        return float(labelled_loss(network(torch.from_numpy(TOKENS)).logits, torch.from_numpy(labels)))


def test_what_is_labelled_is_learnt_and_the_base_stays(base: LanguageModel):
    before = copy.deepcopy(base.hf.state_dict())
    seen = []
    torch.manual_seed(0)
    network = fine_tune(base, TOKENS, LABELS, FineTuning(150, 8, 5e-3), lambda *done: seen.append(done))
    assert seen == [(step, 150) for step in range(1, 151)]
    assert all(torch.equal(value, before[name]) for name, value in base.hf.state_dict().items())
    assert loss(network, LABELS) < 0.6 * loss(base.hf, LABELS)
    rest = np.where(np.arange(9) >= 6, TOKENS, UNLABELLED)
    gained = [loss(base.hf, labels) - loss(network, labels) for labels in (LABELS, rest)]
    assert gained[1] < 0.5 * gained[0]
    assert not network.training


def test_the_rows_are_read_in_order_and_again(base: LanguageModel):
    made = []
    for tokens, labels in (
        (TOKENS[:5], LABELS[:5]),
        (np.tile(TOKENS[:5], (3, 1)), np.tile(LABELS[:5], (3, 1))),
    ):
        torch.manual_seed(1)
        made.append(fine_tune(base, tokens, labels, FineTuning(4, 3)).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def test_losses_are_cross_entropies(base: LanguageModel):
    with torch.no_grad():
        logits = base.logits(torch.from_numpy(TOKENS))
    expected = F.cross_entropy(logits[:, :5].flatten(0, 1), torch.from_numpy(TOKENS[:, 1:6]).flatten())
    assert loss(base.hf, LABELS) == pytest.approx(float(expected), rel=1e-5)
    assert mean_loss(base, TOKENS) == pytest.approx(loss(base.hf, TOKENS), rel=1e-5)

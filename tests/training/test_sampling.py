"""One MLP's splices stand for all: their mean over all draws is the exact gradient, at a bounded cost."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from reference.tiny_models import D_MODEL, tiny_model, tiny_tokens
from torch.utils.flop_counter import FlopCounterMode

from xtalk.activations import ActivationBatches, Harvest, measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data.tokens import token_sequences
from xtalk.interactions.penalties import FEW_HOT
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.training.mlps import penalised_mlps, spliced_mlps
from xtalk.training.objective import Objective
from xtalk.training.sampling import EVERYTHING, FEW, Draw, draw, drawn, drawn_few, drawn_place
from xtalk.training.spliced import SPLICES, places_of

LENGTH = 7
SEQUENCES = token_sequences(tiny_tokens(40, LENGTH).numpy().astype("int32"), np.zeros((40, LENGTH), "int32"))
NO_DEAD = torch.empty(0, dtype=torch.int64)
KL = {"keep_one_kl": 2.0, "full_sum_kl": 1.0}


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_every_turn_takes_each_place_once_in_an_order_of_its_own(count: int):
    def turns(seed: int) -> list[list[int]]:
        return [[drawn_place(count, seed, turn * count + i) for i in range(count)] for turn in range(40)]

    assert all(sorted(turn) == list(range(count)) for turn in turns(7))
    assert turns(7) == turns(7)
    if count > 1:
        assert len(set(map(tuple, turns(7)))) > 1
        assert turns(7) != turns(8)


def test_at_any_step_each_place_is_as_likely():
    draws = Counter(drawn_place(4, seed, 6) for seed in range(2000))
    assert set(draws) == set(range(4))
    assert all(abs(times - 500) < 4 * (2000 / 4 * 3 / 4) ** 0.5 for times in draws.values())


def test_every_number_kept_comes_once_a_turn_and_with_every_place():
    turns = [[drawn_few(7, turn * len(FEW_HOT) + i) for i in range(len(FEW_HOT))] for turn in range(400)]
    assert all(Counter(turn) == Counter(FEW_HOT) for turn in turns)
    assert turns[0] == [drawn_few(7, i) for i in range(len(FEW_HOT))] != turns[1]
    both = Counter((drawn_place(len(FEW_HOT), 7, step), drawn_few(7, step)) for step in range(2000))
    assert len(both) == len(FEW_HOT) ** 2
    assert all(abs(times - 80) < 4 * (80 * 24 / 25) ** 0.5 for times in both.values())
    assert draw(30, None, 7, 3) == Draw(drawn_place(30, 7, 3), (drawn_few(7, 3),))


def test_few_mlps_all_count_unless_it_is_said():
    assert drawn(FEW, None, 0, 3) is None and drawn(30, False, 0, 3) is None
    assert drawn(FEW + 1, None, 0, 3) == drawn_place(FEW + 1, 0, 3)
    assert drawn(2, True, 0, 3) == drawn_place(2, 0, 3)


class Problem:
    """A crosscoder at every MLP input of a model, a batch of whole sequences, and where its tokens stand."""

    def __init__(self, model: LanguageModel, seed: int, sequences: int = 2) -> None:
        points = [Hookpoint(block, "ln2") for block in range(model.n_blocks)]
        stream = ActivationBatches(Harvest(model, SEQUENCES, points), sequences * LENGTH, seed, sequences)
        scaling = measure_scaling(stream, 100)
        names = stream.source.identity.hookpoints
        self.crosscoder = Crosscoder(CrosscoderConfig(d_in=D_MODEL, d_sae=29, k=5, hook_names=names))
        generator = torch.Generator().manual_seed(seed)
        self.crosscoder.initialise(
            scaling.apply(scaling.mean_PD), torch.randn(self.crosscoder.W_dec.shape, generator=generator)
        )
        batch = next(stream)
        self.x_BPD, self.places = scaling.apply(batch.activations), places_of(batch, SEQUENCES)
        mlps = penalised_mlps(names, model, scaling, [batch.activations])
        sample = torch.from_numpy(SEQUENCES.tokens[:6]).long().split(3)
        self.mlps = spliced_mlps(mlps, names, model, scaling, sample, KL)

    def step(self, penalties: dict[str, float], draw: Draw = EVERYTHING) -> dict[str, torch.Tensor]:
        """Forward and backward of the loss; the gradients."""
        self.crosscoder.zero_grad()
        objective = Objective(self.mlps, penalties, aux=0.0, sparsity=0.0, bfloat16=False)
        splicing = self.places if any(name in SPLICES for name in penalties) else None
        objective(self.crosscoder, self.x_BPD, NO_DEAD, 1.0, splicing, draw)[0].backward()
        named = self.crosscoder.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("blocks", [2, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mean_over_draws_is_the_exact_gradient(blocks: int, seed: int):
    """Each place has the probability 1 / count, so that the mean over places is the expectation itself."""
    problem = Problem(tiny_model("llama", seed, num_hidden_layers=blocks), seed)
    penalties = {"keep_one": 3.0} | KL
    exact = problem.step(penalties)
    check_mean([problem.step(penalties, Draw(place)) for place in range(blocks)], exact)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_the_mean_over_numbers_kept_is_the_exact_gradient(kind: str):
    problem = Problem(tiny_model(kind), 0)
    penalties = {"keep_few": 3.0, "keep_few_kl": 2.0}
    check_mean([problem.step(penalties, Draw(few=(m,))) for m in FEW_HOT], problem.step(penalties))


def check_mean(drawn: list[dict[str, torch.Tensor]], exact: dict[str, torch.Tensor]) -> None:
    """Of gradients; a draw is no more than an estimate."""
    for name, gradient in exact.items():
        mean = torch.stack([one[name].double() for one in drawn]).mean(0)
        torch.testing.assert_close(mean.float(), gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    spread = torch.stack([one["W_dec"] for one in drawn]).std(0).max()
    assert spread > 1e-2 * exact["W_dec"].abs().max()


def flops(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def forward_and_backward(model: LanguageModel, tokens: torch.Tensor) -> None:
    model.capture(tokens, [Hookpoint(0, "resid_post")])
    start = torch.randn(*tokens.shape, D_MODEL, requires_grad=True)
    model.continue_from(0, start, tokens).sum().backward()


def test_its_cost_is_that_of_one_pass_of_the_model_at_any_depth():
    """In FLOPs of a forward pass and a backward pass to activations, which is less than to the weights."""
    costs: dict[int, tuple[float, float]] = {}
    for blocks in (4, 30):
        model = tiny_model("llama", num_hidden_layers=blocks)
        problem = Problem(model, 0, sequences=8)
        whole = flops(partial(forward_and_backward, model, problem.places.tokens_mS))
        plain = flops(partial(problem.step, {}))
        ends = (0, blocks - 1)  # a block more above the splice costs the same at any place
        drawn = [flops(partial(problem.step, KL, Draw(place))) - plain for place in ends]
        every = flops(partial(problem.step, KL)) - plain
        costs[blocks] = sum(drawn) / 2 / whole, every / whole
    assert costs[30][0] < 1.6
    assert costs[30][0] < 1.05 * costs[4][0]
    assert costs[30][1] > 5 * costs[4][1]

"""A whole evaluation: its parts agree with direct calls, and nothing depends on how the text is batched."""

from functools import cache
from weakref import WeakSet

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out, random_crosscoder
from reference.tiny_models import tiny_model

from xtalk.data import Counted
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import mean_mlp_outputs, measure_baselines
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.interactions.measures import dominant_share, few_hot_shares, interaction
from xtalk.interactions.true_interaction import tightness
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained
from xtalk.reading.one_by_one import OneByOne
from xtalk.reading.pairs import measure_pairs
from xtalk.reading.ranked import RankedContributions

TEXT = held_out()
DOCUMENTS = len(np.unique(TEXT.documents))


def evaluated(kind="gpt_neo", sequences=TEXT, **changes):
    model = tiny_model(kind)
    crosscoder = random_crosscoder(model)
    baselines = measure_baselines(model, sequences, mean_mlp_outputs(model, held_out(seed=1), 50, range(3)))
    settings = {"resamples": 40, "seed": 0} | changes
    factor_P = torch.full((len(model.hookpoints()),), 0.7)
    return evaluate_crosscoder(model, crosscoder, factor_P, sequences, baselines, **settings)


@cache
def usual(kind="gpt_neo"):
    return evaluated(kind)


def flat(value, path="") -> dict[str, float]:
    """Every number of an evaluation by its path."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        value = vars(value)
    if hasattr(value, "_fields"):
        value = value._asdict()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {path: value}
    return {k: v for key, item in items for k, v in flat(item, f"{path}/{key}").items()}


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_figures_do_not_depend_on_micro_batches(kind):
    one, other = (flat(evaluated(kind, micro_batch=m)) for m in (2, 9))
    assert one.keys() == other.keys()
    for path, value in one.items():
        tolerance = {"rel": 2e-3, "abs": 1e-4} if isinstance(value, float) else {}
        assert other[path] == (pytest.approx(value, **tolerance) if tolerance else value), path


@torch.no_grad()
def test_a_tokens_code_does_not_depend_on_its_batch():
    model = tiny_model("gpt_neo")
    explained = Explained(model, random_crosscoder(model))
    (whole,) = (explained.read(batch).codes.dense() for batch in batches(model, TEXT, 100))
    alone = torch.cat([explained.read(batch).codes.dense() for batch in batches(model, TEXT, 1)])
    assert (whole > 0).any(1).float().mean() > 0.5
    torch.testing.assert_close(alone, whole)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
@torch.no_grad()
def test_interaction_is_the_mean_of_the_measures(kind):
    model = tiny_model(kind)
    rows = {row.block: row for row in usual(kind).interaction}
    explained = Explained(model, random_crosscoder(model))
    (whole,) = map(explained.read, batches(model, TEXT, 100))
    shares = []
    for block in range(3):
        p, row = whole.contributions[block], rows[block]
        shares.append(float(dominant_share(p).mean()))
        assert row.dominant_share.value == pytest.approx(shares[-1], rel=1e-5)
        for m, share_BN in few_hot_shares(p, (1, 2, 4, 8)).items():
            assert row.shares[m].value == pytest.approx(float(share_BN.mean()), rel=1e-5)
        assert row.T.value == pytest.approx(float(interaction(p).mean()), rel=1e-5)
        bound = np.sort(tightness(p).numpy())
        bound = bound[np.isfinite(bound)]
        assert row.tightness[2] == pytest.approx(float(np.median(bound)), rel=1e-4)
        assert list(row.tightness) == sorted(row.tightness)
        assert row.tightness[0] > 1
    assert rows["mean"].dominant_share.value == pytest.approx((shares[1] + shares[2]) / 2, rel=1e-5)
    assert rows["mean"].tightness == ()


def test_documents_are_resampled_and_not_sequences():
    """The same sequences seen as documents of other sizes give the same values and other intervals."""
    documents = (np.arange(TEXT.tokens.size) // 9).reshape(TEXT.tokens.shape).astype(np.int32)
    assert len(np.unique(documents)) >= 8
    one = usual()
    other = evaluated(sequences=token_sequences(TEXT.tokens, documents))
    for row, same in zip(one.fidelity, other.fidelity, strict=True):
        for scheme, phi in row.phi.items():
            assert same.phi[scheme].value == pytest.approx(phi.value, abs=1e-4)
            assert same.phi[scheme].low != pytest.approx(phi.low, abs=1e-6)


def test_the_seed_decides_random_schemes_and_resamples_and_nothing_else():
    one, again, other = usual(), evaluated(), evaluated(seed=1)
    assert flat(one) == flat(again)
    for row, changed in zip(one.fidelity, other.fidelity, strict=True):
        assert changed.phi["keep_1"].value == row.phi["keep_1"].value
        assert changed.phi["keep_1"].low != row.phi["keep_1"].low
        assert changed.phi["keep_random"].value != row.phi["keep_random"].value


def test_progress_ends_with_all_sequences_at_all_blocks():
    seen, measured = [], []
    evaluated(progress=lambda done, total: seen.append((done, total)), micro_batch=4)
    zeros = {1: torch.zeros(tiny_model("gpt_neo").d_model)}
    measure_baselines(tiny_model("gpt_neo"), TEXT, zeros, 4, progress=lambda *parts: measured.append(parts))
    assert seen == [(done, 27) for done in (4, 8, 12, 16, 20, 24, 25, 26, 27)]
    assert measured == [(4, 9), (8, 9), (9, 9)]


def test_baselines_of_some_blocks_are_those_of_all(monkeypatch):
    """Only blocks that are asked for are read and run on from."""
    model, ran = tiny_model("gpt_neo"), []
    go_on = model.continue_from
    monkeypatch.setattr(model, "continue_from", lambda block, *a: ran.append(block) or go_on(block, *a))
    blocks = ((0, 1, 2), (1,))
    whole, some = (measure_baselines(model, TEXT, mean_mlp_outputs(model, TEXT, 50, b)) for b in blocks)
    assert set(ran[3:]) == set(some.ablated) == set(some.mean_outputs) == {1}
    assert torch.equal(whole.mean_outputs[1], some.mean_outputs[1])
    assert some.ablated[1].tolist() == whole.ablated[1].tolist()


def test_what_does_not_fit_is_refused():
    model = tiny_model("gpt_neo")
    baselines = measure_baselines(model, TEXT, dict.fromkeys(range(3), torch.zeros(model.d_model)))
    crosscoder, factor_P = random_crosscoder(model), torch.ones(13)
    arguments = {"resamples": 10, "seed": 0}
    with pytest.raises(XtalkError, match="measured on another text"):
        evaluate_crosscoder(model, crosscoder, factor_P, held_out(seed=3), baselines, **arguments)
    with pytest.raises(XtalkError, match=r"averaged=\[3\] is empty or has blocks"):
        evaluate_crosscoder(model, crosscoder, factor_P, TEXT, baselines, averaged=[3], **arguments)
    some = measure_baselines(model, TEXT, {1: torch.zeros(model.d_model)})
    with pytest.raises(XtalkError, match=r"measured at blocks 1, not at block 0; measure them at all"):
        evaluate_crosscoder(model, crosscoder, factor_P, TEXT, some, **arguments)
    few = token_sequences(TEXT.tokens, np.zeros_like(TEXT.documents))
    baselines = measure_baselines(model, few, dict.fromkeys(range(3), torch.zeros(model.d_model)))
    with pytest.raises(XtalkError, match="has 1 documents"):
        evaluate_crosscoder(model, crosscoder, factor_P, few, baselines, **arguments)


@torch.no_grad()
def test_tokens_without_a_residual_are_left_out_of_the_tightness(monkeypatch):
    def of_every_third_token(p):
        ratios_B = torch.full((len(p.codes.values),), torch.inf)
        ratios_B[::3] = 5.0
        return ratios_B

    monkeypatch.setattr("xtalk.evaluation.interaction.tightness", of_every_third_token)
    for row in evaluated().interaction:
        assert row.tightness == (() if row.block == "mean" else (5,) * 5)


def test_activations_that_are_not_finite_are_named():
    model = tiny_model("gpt_neo")
    crosscoder = random_crosscoder(model)
    model.hf.transformer.h[1].ln_2.weight.data.fill_(float("nan"))
    explained = Explained(model, crosscoder)
    with pytest.raises(XtalkError, match=r"NaN or infinite activations at blocks\.1\.ln2"):
        explained.read(next(batches(model, TEXT)))


def test_predictions_of_which_none_counts_are_refused():
    model, last = tiny_model("gpt_neo"), TEXT.length - 1
    with pytest.raises(XtalkError, match="no prediction of the text is read from a token that counts"):
        measure_baselines(model, TEXT, {1: torch.zeros(model.d_model)}, counted=Counted(last))


@pytest.mark.parametrize("kind", ["gpt_neo", "gemma2"])
def test_contributions_to_one_block_are_held_at_a_time(kind, monkeypatch):
    """So memory does not grow with the number of blocks; two where the error node is kept beside."""
    live, most = WeakSet[RankedContributions](), [0]
    made = RankedContributions.__init__

    def counting(self, *args, **kwargs):
        made(self, *args, **kwargs)
        live.add(self)
        most.append(len(live))

    monkeypatch.setattr(RankedContributions, "__init__", counting)
    evaluated(kind)
    assert max(most) == 1
    evaluated(kind, keep_error=True)
    assert max(most) == 2
    most.clear()
    model = tiny_model(kind)
    measure_pairs(model, random_crosscoder(model), TEXT)
    assert len(most) >= 3 and max(most) == 1


def test_values_made_one_by_one():
    asked = []
    values = OneByOne([1, 2, 3], lambda key: asked.append(key) or [key])
    assert values[2] is values[2] and asked == [2]
    assert list(values.items()) == [(1, [1]), (2, [2]), (3, [3])] and asked == [2, 1, 2, 3]
    assert values.named(str)["3"] is values[3] and asked == [2, 1, 2, 3]
    assert list(values.named("b{}".format)) == ["b1", "b2", "b3"] and len(values) == 3
    assert 4 not in values
    with pytest.raises(KeyError):
        values[4]

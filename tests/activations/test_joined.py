"""Activations of several models as one source."""

import numpy as np
import pytest
import torch
from activations.fake_model import HOOKPOINTS, FakeModel, numbered_sequences

from xtalk.activations import ActivationBatches, Harvest, JoinedHarvest
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint


class Doubled(FakeModel):
    def capture(self, tokens_BS, hookpoints):
        return 2 * super().capture(tokens_BS, hookpoints)


def test_hookpoints_of_each_model_in_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xtalk.activations.harvest.micro_batch", lambda length, *rest: 2)
    sequences = numbered_sequences(5, 4)
    joined = JoinedHarvest({"base": FakeModel(), "org/chat": Doubled()}, sequences, HOOKPOINTS)
    rows = np.array([3, 0, 4])
    P = len(HOOKPOINTS)
    assert joined.identity.hookpoints[0] == "base/blocks.0.resid_pre"
    assert joined.identity.hookpoints[P] == "org/chat/blocks.0.resid_pre"
    found = torch.cat(list(joined.read(rows)))
    base = torch.cat(list(Harvest(FakeModel(), sequences, HOOKPOINTS).read(rows)))
    torch.testing.assert_close(found[:, :, :P], base, rtol=0, atol=0)
    torch.testing.assert_close(found[:, :, P:], 2 * base, rtol=0, atol=0)


def test_a_stream_of_it_keeps_tokens_together():
    joined = JoinedHarvest({"a": FakeModel(), "b": Doubled()}, numbered_sequences(6, 4), HOOKPOINTS)
    batch = next(ActivationBatches(joined, 7, seed=0))
    P = len(HOOKPOINTS)
    torch.testing.assert_close(batch.activations[:, 0, 0], batch.tokens.float())
    torch.testing.assert_close(batch.activations[:, P:], 2 * batch.activations[:, :P])


def test_identity_tells_models_and_their_order_apart():
    def hash_of(**models: FakeModel) -> str:
        return JoinedHarvest(models, numbered_sequences(2, 4), HOOKPOINTS).identity.model

    one, other = FakeModel(weights_hash="1"), FakeModel(weights_hash="2")
    assert len({hash_of(a=one, b=other), hash_of(a=other, b=one), hash_of(b=one, a=other)}) == 3


def test_models_of_different_width_are_refused():
    wide = FakeModel()
    wide.d_model = 8
    with pytest.raises(XtalkError, match="narrow 6, wide 8; expected one or more of the same d_model"):
        JoinedHarvest({"narrow": FakeModel(), "wide": wide}, numbered_sequences(2, 4), HOOKPOINTS)
    with pytest.raises(XtalkError, match="no model"):
        JoinedHarvest({}, numbered_sequences(2, 4), [Hookpoint(0, "ln2")])

"""The scale of activations."""

import pytest
import torch
from activations.fake_model import HOOKPOINTS, FakeModel, numbered_sequences

from xtalk.activations import ActivationStream, Scaling, measure_scaling
from xtalk.errors import XtalkError


def make_stream(model: FakeModel | None = None) -> ActivationStream:
    sequences = numbered_sequences(12, 5)
    return ActivationStream(
        model or FakeModel(), sequences, HOOKPOINTS, batch_tokens=6, seed=3, buffer_sequences=4
    )


def test_mean_norm_becomes_the_root_of_the_width():
    x_BPD = torch.cat([batch.activations for batch in make_stream()])
    scaling = measure_scaling(make_stream())
    norm_P = scaling.apply(x_BPD).norm(dim=-1).mean(0)
    torch.testing.assert_close(norm_P, torch.full((len(HOOKPOINTS),), 6**0.5))
    torch.testing.assert_close(scaling.mean_PD, x_BPD.mean(0))


def test_measures_the_next_tokens_and_leaves_the_stream_where_it_was():
    stream = make_stream()
    next(stream)
    _, second, *_ = make_stream()
    scaling = measure_scaling(stream, tokens=6)
    torch.testing.assert_close(scaling.mean_PD, second.activations.mean(0))
    assert stream.tokens_seen == 6
    torch.testing.assert_close(next(stream).activations, second.activations)


def test_a_measurement_that_fails_leaves_the_stream_where_it_was():
    class Failing(FakeModel):
        fails = False

        def capture(self, tokens_BS, hookpoints):
            if self.fails:
                raise XtalkError("no more")
            return super().capture(tokens_BS, hookpoints)

    model = Failing()
    stream = make_stream(model)
    _, second, *_ = make_stream()
    next(stream)
    model.fails = True
    with pytest.raises(XtalkError, match="no more"):
        measure_scaling(stream)
    model.fails = False
    assert stream.tokens_seen == 6
    torch.testing.assert_close(next(stream).activations, second.activations)


def test_zero_activations_and_an_ended_stream_are_refused():
    class Silent(FakeModel):
        def capture(self, tokens_BS, hookpoints):
            captured = super().capture(tokens_BS, hookpoints)
            captured[:, :, 1] = 0
            return captured

    with pytest.raises(XtalkError, match=r"blocks\.0\.ln1 are all zero"):
        measure_scaling(make_stream(Silent()))
    stream = make_stream()
    list(stream)
    with pytest.raises(XtalkError, match="no tokens left"):
        measure_scaling(stream)


def test_to_moves_both_tensors():
    scaling = Scaling(torch.ones(2), torch.zeros(2, 3)).to("meta")
    assert scaling.factor_P.device.type == scaling.mean_PD.device.type == "meta"

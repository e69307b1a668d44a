"""What trainings share is read once, and changes nothing."""

import pytest
import torch
from training.tiny_training import (
    RandomMlps,
    SparseSource,
    batches,
    crosscoder_config,
    scaling_of,
    training_config,
)

from xtalk.errors import XtalkError
from xtalk.training.config import calibration_tokens
from xtalk.training.preparation import prepare
from xtalk.training.train import train_crosscoder

PENALTIES = {"sum_minus_max": 1.0, "keep_one": 0.5}


def prepared(penalties=(), stream=None, **how):
    stream = stream or batches()
    return prepare(
        crosscoder_config(), training_config(), stream, RandomMlps(), scaling_of(), penalties=penalties, **how
    )


@pytest.mark.parametrize("penalties", [{}, PENALTIES])
def test_crosscoders_that_share_it_are_those_trained_alone(penalties: dict[str, float]):
    shared = prepared(penalties=PENALTIES)  # of all crosscoders of the sweep
    how = crosscoder_config(), training_config(penalties=penalties), RandomMlps(), scaling_of()
    config, training, model, scaling = how
    alone, together = (
        train_crosscoder(config, training, batches(), model, scaling, prepared=given).crosscoder
        for given in (None, shared)
    )
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, together.state_dict()[name]), name


def test_it_is_one_pass_and_leaves_the_stream_where_it_was(monkeypatch):
    read, stream, scaling = [0], batches(), scaling_of()
    source_read = SparseSource.read

    def counting(self: SparseSource, rows):
        read[0] += rows.size * self.sequences.length
        return source_read(self, rows)

    monkeypatch.setattr(SparseSource, "read", counting)
    heard: list[tuple[str, int, int]] = []
    how = crosscoder_config(), training_config(), stream, RandomMlps(), scaling
    prepare(*how, penalties=PENALTIES, progress=lambda *report: heard.append(report))
    assert stream.tokens_seen == 0
    assert read[0] <= calibration_tokens(64) + 16 * stream.source.sequences.length
    assert heard[-1] == ("start values", calibration_tokens(64), calibration_tokens(64))


def test_crosscoders_that_exist_need_no_start():
    assert prepared(fresh=False).direction_LPD is None
    assert len(prepared(PENALTIES, fresh=False).mlps) == 2
    assert prepared().mlps == ()


def test_penalties_that_cannot_be_are_said_before_anything_trains():
    source = SparseSource()
    source.names = tuple(name for name in source.names if not name.endswith("ln2"))
    with pytest.raises(XtalkError, match="penalties need an MLP's input"):
        prepare(
            crosscoder_config(source),
            training_config(),
            batches(),
            RandomMlps(),
            scaling_of(),
            penalties=PENALTIES,
        )

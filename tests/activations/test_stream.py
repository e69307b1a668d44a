"""The order, completeness and resumption of streams of activations."""

import json
import logging
from typing import Any

import numpy as np
import pytest
import torch
from activations.fake_model import HOOKPOINTS, FakeModel, numbered_sequences
from hypothesis import given
from hypothesis import strategies as st

from xtalk.activations import ActivationBatch, ActivationStream, harvest
from xtalk.data import Counted
from xtalk.errors import XtalkError


def make_stream(n: int = 10, length: int = 4, **different: Any) -> ActivationStream:
    settings = {"batch_tokens": 7, "seed": 0, "buffer_sequences": 3} | different
    return ActivationStream(FakeModel(), numbered_sequences(n, length), HOOKPOINTS, **settings)


def bytes_of(batch: ActivationBatch) -> list[bytes]:
    parts = (batch.activations, batch.tokens, batch.sequences, batch.positions)
    return [part.numpy().tobytes() for part in parts]


@given(
    n=st.integers(1, 9),
    length=st.integers(1, 5),
    batch_tokens=st.integers(1, 12),
    buffer_sequences=st.integers(1, 5),
    epochs=st.integers(1, 3),
    skip=st.integers(0, 2),
    seed=st.integers(0, 3),
)
def test_every_token_once_per_epoch_with_its_own_activations(
    n: int, length: int, batch_tokens: int, buffer_sequences: int, epochs: int, skip: int, seed: int
):
    settings = {
        "batch_tokens": batch_tokens,
        "seed": seed,
        "buffer_sequences": buffer_sequences,
        "epochs": epochs,
        "counted": Counted(skip),
    }
    per_epoch = n * (length - skip)
    if length <= skip or epochs * per_epoch < batch_tokens:
        with pytest.raises(XtalkError):
            make_stream(n, length, **settings)
        return
    stream = make_stream(n, length, **settings)
    batches = list(stream)
    assert {len(batch.tokens) for batch in batches} == {batch_tokens}
    assert all(batch.activations.shape == (batch_tokens, len(HOOKPOINTS), 6) for batch in batches)
    tokens = torch.cat([batch.tokens for batch in batches])
    assert len(tokens) == stream.tokens_seen == stream.tokens_available
    assert epochs * per_epoch - batch_tokens < len(tokens) <= epochs * per_epoch
    kept = [token for token in range(n * length) if token % length >= skip]
    for epoch in range(epochs):
        of_epoch = tokens[epoch * per_epoch : (epoch + 1) * per_epoch].tolist()
        assert len(set(of_epoch)) == len(of_epoch)
        assert set(of_epoch) <= set(kept)
    for batch in batches:
        torch.testing.assert_close(batch.tokens, batch.sequences * length + batch.positions)
        for slot in range(len(HOOKPOINTS)):
            expected = torch.stack(
                [batch.tokens, batch.positions, torch.full_like(batch.tokens, slot)], dim=1
            )
            torch.testing.assert_close(batch.activations[:, slot, :3], expected.float())


@pytest.mark.parametrize("batches_before", [0, 1, 2, 5, 9])
def test_resumes_bit_for_bit_in_the_middle_of_a_buffer(batches_before: int):
    whole = [bytes_of(batch) for batch in make_stream(epochs=2)]
    first = make_stream(epochs=2)
    for _ in range(batches_before):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    second = make_stream(epochs=2)
    next(second)
    second.load_state_dict(state)
    assert [bytes_of(batch) for batch in second] == whole[batches_before:]


def test_batches_do_not_share_memory_with_the_buffer():
    stream = make_stream()
    first = next(stream)
    before = bytes_of(first)
    list(stream)
    assert bytes_of(first) == before


def test_order_depends_on_the_seed_and_the_epoch_and_mixes_sequences():
    def order(**settings: Any) -> list[int]:
        return torch.cat([b.tokens for b in make_stream(24, 8, batch_tokens=8, **settings)]).tolist()

    assert order(seed=0) == order(seed=0) != order(seed=1)
    twice = order(seed=0, epochs=2)
    assert twice[:192] == order(seed=0)
    assert twice[192:] != twice[:192]
    first = next(make_stream(24, 8, batch_tokens=8, buffer_sequences=8))
    assert len(first.sequences.unique()) > 3
    assert first.sequences.max() > 8


def test_sequences_are_grouped_anew_every_epoch():
    stream = make_stream(batch_tokens=20, buffer_sequences=5, epochs=2)
    groups = [frozenset(batch.sequences.tolist()) for batch in stream]
    assert groups[0] | groups[1] == groups[2] | groups[3] == set(range(10))
    assert not {groups[2], groups[3]} & {groups[0], groups[1]}


def test_tokens_are_mixed_anew_in_every_buffer():
    """Also where one buffer holds the whole text, and a buffer of the next epoch follows its like."""
    of_one_sequence = [tuple(b.positions.tolist()) for b in make_stream(batch_tokens=4, buffer_sequences=1)]
    assert len(set(of_one_sequence)) > 3
    whole = make_stream(batch_tokens=40, buffer_sequences=10, epochs=2)
    first, second = (batch.tokens.tolist() for batch in whole)
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_goes_on_rightly_after_a_read_that_failed_halfway(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(harvest, "micro_batch", lambda *_: 1)

    class Interrupted(FakeModel):
        def capture(self, tokens_BS: Any, hookpoints: Any):
            captured = super().capture(tokens_BS, hookpoints)
            if self.captures == 5:  # the second sequence of the second buffer
                raise KeyboardInterrupt
            return captured

    expected = make_stream()
    stream = ActivationStream(
        Interrupted(), numbered_sequences(10, 4), HOOKPOINTS, batch_tokens=7, seed=0, buffer_sequences=3
    )
    assert bytes_of(next(stream)) == bytes_of(next(expected))
    state = stream.state_dict()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    stream.load_state_dict(state)
    assert list(map(bytes_of, stream)) == list(map(bytes_of, expected))


def test_content_does_not_depend_on_the_micro_batch(monkeypatch: pytest.MonkeyPatch):
    expected = [bytes_of(batch) for batch in make_stream(buffer_sequences=5)]
    for sequences in (1, 2, 3):
        monkeypatch.setattr(harvest, "micro_batch", lambda *_, chosen=sequences: chosen)
        assert [bytes_of(batch) for batch in make_stream(buffer_sequences=5)] == expected


def test_micro_batch_is_a_rule_of_shapes():
    cpu = torch.device("cpu")
    assert harvest.micro_batch(length=256, hookpoints=17, d_model=128, device=cpu) == 8
    assert harvest.micro_batch(length=4096, hookpoints=17, d_model=128, device=cpu) == 1
    wide = harvest.micro_batch(length=16, hookpoints=129, d_model=8192, device=cpu)
    assert 1 <= wide < 2048 // 16


def test_repeats_are_said(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        list(make_stream(epochs=1))
        assert not caplog.records
        list(make_stream(epochs=3))
    assert [record.getMessage() for record in caplog.records] == [
        "every token has been seen; the text is read up to 3 times"
    ]


def test_each_buffer_is_captured_once():
    model = FakeModel()
    stream = ActivationStream(
        model, numbered_sequences(10, 4), HOOKPOINTS, batch_tokens=5, seed=0, buffer_sequences=4
    )
    list(stream)
    assert model.captures == 3


def test_float32_from_a_bfloat16_model():
    model = FakeModel(torch.bfloat16)
    batch = next(ActivationStream(model, numbered_sequences(3, 4), HOOKPOINTS, batch_tokens=12, seed=0))
    assert batch.activations.dtype == torch.float32
    torch.testing.assert_close(batch.activations, batch.activations.bfloat16().float(), rtol=0, atol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_the_hookpoint(value: float):
    class Broken(FakeModel):
        def capture(self, tokens_BS: Any, hookpoints: Any):
            captured = super().capture(tokens_BS, hookpoints)
            captured[0, 1, 3, 2] = value
            return captured

    stream = ActivationStream(Broken(), numbered_sequences(3, 4), HOOKPOINTS, batch_tokens=5, seed=0)
    with pytest.raises(XtalkError, match=r"1 NaN or infinite activations at blocks\.0\.ln2"):
        next(stream)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_tokens": 0},
        {"buffer_sequences": 0},
        {"epochs": 0},
        {"counted": Counted(4)},
        {"batch_tokens": 41},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int]):
    with pytest.raises(XtalkError, match=r"expected 1 or more|no token counts: 4 of 4|one batch takes 41"):
        make_stream(**settings)


@pytest.mark.parametrize("different", [{"seed": 1}, {"batch_tokens": 6}, {"buffer_sequences": 4}, {"n": 11}])
def test_the_state_of_another_stream_is_refused(different: dict[str, int]):
    state = make_stream().state_dict()
    with pytest.raises(XtalkError, match="the saved position is of a stream with"):
        make_stream(**different).load_state_dict(state)


def test_tokens_are_left_out_for_what_they_are():
    """Sequences of unlike numbers of tokens that count, one of them with none, over several buffers."""
    skipped = {4, 5, 6, 7, 9, 13, 14, 33}  # tokens are numbered; the whole of the second sequence is skipped
    counted = Counted(1, frozenset(skipped))
    stream = make_stream(counted=counted, epochs=2)
    left = {t for t in range(40) if t % 4 >= 1 and t not in skipped}
    assert stream.tokens_available == 2 * len(left) // 7 * 7
    batches = list(stream)
    tokens = torch.cat([batch.tokens for batch in batches]).tolist()
    assert sorted(tokens[: len(left)]) == sorted(left)
    assert len(set(tokens[len(left) :])) == len(tokens) - len(left) and set(tokens) == left
    for batch in batches:
        assert torch.equal(batch.tokens, batch.sequences * 4 + batch.positions)
        alone = FakeModel().capture(batch.tokens[:, None], HOOKPOINTS)[:, 0]
        assert batch.activations.shape == alone.shape
    half = make_stream(counted=counted, epochs=2)
    _ = next(half), next(half)
    again = make_stream(counted=counted, epochs=2)
    again.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert bytes_of(next(again)) == bytes_of(batches[2])
    with pytest.raises(XtalkError, match="skip_tokens"):
        make_stream(counted=Counted(1), epochs=2).load_state_dict(half.state_dict())

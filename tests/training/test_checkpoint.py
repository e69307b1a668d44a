"""A checkpoint with a single wrong bit is not gone on from."""

import random
from pathlib import Path

import pytest
import torch
from training.tiny_training import crosscoder_config, training_config

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.training.checkpoint import FILE, TrainingState, load_checkpoint, save_checkpoint
from xtalk.training.train import training_state

IDENTITY = {"lr": 1e-3, "hook_names": ("blocks.0.ln2",), "penalties": {"keep_one": 1.0}}
STREAM = {"text": "hash", "tokens_seen": 640}


def state(seed: int) -> TrainingState:
    made = training_state(Crosscoder(crosscoder_config()), training_config())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.crosscoder.parameters():
            parameter.normal_(generator=generator)
            for moment in made.optimiser.moments(parameter).values():
                moment.fill_(seed + 0.25)
    made.last_fired_L.random_(generator=generator)
    made.step, made.rates = seed, [0.1, 1 / 3]
    return made


def tensors(of: TrainingState) -> list[torch.Tensor]:
    moments = [of.optimiser.moments(p) for p in of.crosscoder.parameters()]
    return [
        *of.crosscoder.parameters(),
        *(m for by_name in moments for m in by_name.values()),
        of.last_fired_L,
    ]


def test_all_comes_back(tmp_path: Path):
    saved, other = state(7), state(8)
    save_checkpoint(tmp_path, saved, STREAM, IDENTITY)
    assert load_checkpoint(tmp_path, other, IDENTITY) == STREAM
    assert (other.step, other.rates) == (7, [0.1, 1 / 3])
    assert all(map(torch.equal, tensors(saved), tensors(other)))
    assert load_checkpoint(tmp_path / "nothing", other, IDENTITY) is None


def test_a_flipped_bit_anywhere_is_refused_before_anything_is_taken_over(tmp_path: Path):
    save_checkpoint(tmp_path, state(7), STREAM, IDENTITY)
    path, generator = tmp_path / FILE, random.Random(0)
    whole = path.read_bytes()
    places = [0, 9, len(whole) - 1, *(generator.randrange(len(whole)) for _ in range(60))]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << generator.randrange(8)
        path.write_bytes(flipped)
        untouched = state(8)
        with pytest.raises(XtalkError, match="checkpoint") as caught:
            load_checkpoint(tmp_path, untouched, IDENTITY)
        assert "\n" not in str(caught.value), place
        assert all(map(torch.equal, tensors(untouched), tensors(state(8)))), place

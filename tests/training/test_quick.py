"""A small crosscoder is kept in its folder, and refused where another one is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY, tiny_model

from xtalk.activations import Harvest
from xtalk.data import Counted
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.training import quick as module
from xtalk.training.config import TrainingConfig
from xtalk.training.quick import small_crosscoder, train_on
from xtalk.training.spliced import SplicedMlp, TrueRun


def test_it_is_kept_and_refused_for_another_text_seed_or_number_of_steps(tmp_path: Path, monkeypatch):
    for name, value in {"BATCH": 64, "K": 4, "EXPANSION": 2, "_SCALING_TOKENS": 256}.items():
        monkeypatch.setattr(module, name, value)
    model = tiny_model("gpt_neo")

    def made(steps: int, text: int = 0, seed: int = 0):
        tokens = np.random.default_rng(text).integers(1, VOCABULARY, (40, 19)).astype(np.int32)
        sequences = token_sequences(tokens, np.zeros((40, 19), dtype=np.int32))
        source = Harvest(model, sequences, [Hookpoint(0, "ln2")])
        return small_crosscoder(tmp_path / "own", source, model, seed, steps=steps)

    first = made(4)
    monkeypatch.setattr(module, "train_crosscoder", None)  # nothing is trained again
    assert torch.equal(made(4).W_dec, first.W_dec)
    with pytest.raises(XtalkError, match="was trained for 4 steps; expected 5; give another folder"):
        made(5)
    with pytest.raises(XtalkError, match="trained on another model or text"):
        made(4, text=1)
    with pytest.raises(XtalkError, match=r"the seed 0; expected 1; give another folder \(--out\), or delete"):
        made(4, seed=1)


def test_a_batch_has_whole_sequences_where_penalties_run_the_model_on(monkeypatch):
    """A batch that is mixed from a large buffer has a few tokens of many sequences, and each is run whole."""
    model = tiny_model("gpt_neo")
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (40, 16)).astype(np.int32)
    sequences = token_sequences(tokens, np.zeros((40, 16), dtype=np.int32))
    run: list[int] = []

    def divergences(mlp: SplicedMlp, true: TrueRun, outputs: dict[str, Any], *rest: Any) -> Any:
        if any(name == "keep_one_kl" for name, _ in outputs):
            run.append(len(true.places.tokens_mS))
        return measured(mlp, true, outputs, *rest)

    measured = SplicedMlp.divergences
    monkeypatch.setattr(SplicedMlp, "divergences", divergences)
    source = Harvest(model, sequences, [Hookpoint(0, "ln2")])
    config = TrainingConfig(steps=2, batch_tokens=48, penalties={"keep_one_kl": 1.0}, splice_from=0)
    train_on(source, model, config, d_sae=16, k=2, counted=Counted())
    assert run
    assert set(run) == {3}

"""What each rank does in the tests of several processes (`tests/test_ranks.py`); never collected."""

import json
import os
from pathlib import Path

import torch
from runs.local_run import local_config
from safetensors.torch import save_file
from training.tiny_training import (
    RandomMlps,
    SparseSource,
    batches,
    crosscoder_config,
    scaling_of,
    training_config,
)

from xtalk import ranks
from xtalk.errors import XtalkError
from xtalk.runs.run import Run
from xtalk.training.train import train_crosscoder

PENALTIES = {"sum_minus_max": 1.0, "keep_one": 0.5}


def exchange() -> None:
    """Every collective once; prints what came of it."""
    with ranks.joined():
        mine = ranks.rank()
        try:
            ranks.check_equal(f"{mine}", "seeds")
        except XtalkError as error:
            different = str(error)
        with ranks.alone():
            alone = [ranks.world(), ranks.total(5), ranks.gathered(torch.ones(2)).tolist()]
        before = ranks.exchanged
        found = {
            "each": ranks.each({"rank": mine, "text": "a\nb" * mine}),
            "from_first": ranks.from_first([mine, None]),
            "total": ranks.total(10 + mine),
            "summed": ranks.summed(torch.tensor([1.0, mine])).tolist(),
            "largest": ranks.largest(torch.tensor([mine, -mine])).tolist(),
            "gathered": ranks.gathered(torch.arange(float(mine))).tolist(),
            "different": different,
            "alone": alone,
        }
        assert ranks.exchanged > before
        print(json.dumps(found))


def train(out: str, architecture: str, stop: str = "", folder: str = "") -> None:
    """Train a tiny crosscoder; the first rank leaves weights and log. stop: after so many steps."""

    def progress(done: int, total: int) -> None:
        if stop and done == int(stop):
            raise SystemExit(0)

    records: list[dict] = []
    sparsity = 1.0 if architecture == "relu" else 0.0
    training = training_config(
        steps=100, penalties=PENALTIES, sparsity=sparsity, checkpoint_every=5, dead_after_tokens=64
    )
    with ranks.joined():
        scaling = scaling_of_all()
        before = ranks.exchanged
        trained = train_crosscoder(
            crosscoder_config(architecture=architecture, d_sae=128, k=2),
            training,
            batches(),
            RandomMlps(),
            scaling,
            checkpoint_folder=Path(folder) if folder else None,
            log=records.append,
            progress=progress,
        )
        if ranks.rank() == 0:
            state = {name: tensor.contiguous() for name, tensor in trained.crosscoder.state_dict().items()}
            save_file(state, f"{out}.safetensors")
            exchanged = (ranks.exchanged - before) / training.steps
            Path(f"{out}.json").write_text(json.dumps({"log": records, "bytes": exchanged}))


def scaling_of_all():
    with ranks.alone():
        return scaling_of()


def too_many() -> None:
    """A stream of fewer sequences than ranks."""
    with ranks.joined():
        try:
            batches(SparseSource(sequences=1), batch_tokens=8)
        except XtalkError as error:
            print(error)


def jumprelu() -> None:
    """A nonlinearity that does not train in several processes."""
    with ranks.joined():
        try:
            config = crosscoder_config(architecture="jumprelu")
            training = training_config(sparsity=1.0)
            train_crosscoder(config, training, batches(), RandomMlps(), scaling_of_all())
        except XtalkError as error:
            print(error)


def run(place: str, dies: str = "", seed: str = "0") -> None:
    """A tiny run to its evaluation. dies: the rank that kills itself in training. seed: of the first rank."""
    with ranks.joined():
        own = int(seed) if ranks.rank() == 0 else 0

        def progress(what: str, done: int, total: int) -> None:
            if what.startswith("train") and done == 12 and dies == str(ranks.rank()):
                os._exit(9)

        try:
            made = Run(
                Path(place) / "run", local_config(Path(place), seed=own), device="cpu", progress=progress
            )
            made.evaluate()
        except XtalkError as error:
            print(error)
            raise SystemExit(2) from None

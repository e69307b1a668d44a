"""What each rank does in the tests of several processes (`tests/test_ranks.py`); never collected."""

import json
import os
from pathlib import Path
from typing import Any

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


class Stopped(Exception):
    """A training that was stopped on purpose."""


def jobs(given: str) -> None:
    """Do one piece of work after the other in the same processes; prints what came of each, as JSON.

    given: a JSON list of lists, the name of a function here and its arguments.
    """
    found: list[Any] = []
    with ranks.joined():
        for name, *arguments in json.loads(given):
            try:
                found.append(globals()[name](*arguments))
            except XtalkError as error:
                found.append(str(error))
    print(json.dumps(found))


def exchange() -> dict[str, Any]:
    """Every collective once, and what came of it."""
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
    return found


def train(out: str, architecture: str, stop: int | None = None, folder: str | None = None) -> None:
    """Train a tiny crosscoder; the first rank leaves weights and log. stop: after that many steps."""

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise Stopped

    records: list[dict] = []
    training = training_config(steps=100, penalties=PENALTIES, checkpoint_every=5, dead_after_tokens=64)
    scaling = scaling_of()
    before = ranks.exchanged
    try:
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
    except Stopped:
        return
    if ranks.rank() == 0:
        state = {name: tensor.contiguous() for name, tensor in trained.crosscoder.state_dict().items()}
        save_file(state, f"{out}.safetensors")
        exchanged = (ranks.exchanged - before) / training.steps
        Path(f"{out}.json").write_text(json.dumps({"log": records, "bytes": exchanged}))


def too_many() -> None:
    """A stream of fewer sequences than ranks."""
    batches(SparseSource(sequences=1), batch_tokens=8)


def jumprelu() -> None:
    """A nonlinearity that does not train in several processes."""
    training = training_config(sparsity=1.0)
    train_crosscoder(
        crosscoder_config(architecture="jumprelu"), training, batches(), RandomMlps(), scaling_of()
    )


def run(place: str, dies: int | None = None, seed: int = 0) -> None:
    """A tiny run to its evaluation. dies: the rank that kills itself in training. seed: of the first rank."""

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("train") and done == 12 and dies == ranks.rank():
            os._exit(9)

    config = local_config(Path(place), seed=seed if ranks.rank() == 0 else 0)
    Run(Path(place) / "run", config, device="cpu", progress=progress).evaluate()

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
from xtalk.activations import ActivationBatches
from xtalk.errors import XtalkError
from xtalk.runs.config import RunConfig
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
        "gathered": ranks.gathered(torch.arange(float(mine))).tolist(),
        "columns": ranks.columns(torch.full((2, mine), mine))[0].tolist(),
        "own columns": ranks.columns(torch.full((2, mine), mine))[1].start == [0, 0, 1][mine],
        "own of sum": sum(ranks.own_of_sum(torch.arange(3.0) + mine, [0, 2, 1]).tolist()) == [0, 9, 9][mine],
        "different": different,
        "alone": alone,
    }
    assert ranks.exchanged > before
    return found


def train(
    out: str,
    architecture: str,
    stop: int | None = None,
    folder: str | None = None,
    sequences: int = 1200,
    batch_tokens: int = 64,
) -> None:
    """Train a tiny crosscoder; the first rank leaves weights and log.

    stop: after that many steps. sequences: of the text, which is read several times if it is short.
    """

    def progress(done: int, total: int) -> None:
        if done == stop:
            raise Stopped

    records: list[dict] = []
    sparsity = 1.0 if architecture == "relu" else 0.0
    training = training_config(
        steps=100,
        batch_tokens=batch_tokens,
        penalties=PENALTIES,
        sparsity=sparsity,
        checkpoint_every=5,
        dead_after_tokens=64,
    )
    scaling = scaling_of()
    source, epochs = SparseSource(sequences=sequences), -(-1200 // sequences)
    try:
        trained = train_crosscoder(
            crosscoder_config(architecture=architecture, d_sae=128, k=2),
            training,
            ActivationBatches(source, batch_tokens, seed=0, buffer_sequences=16, epochs=epochs),
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
        Path(f"{out}.json").write_text(json.dumps({"log": records}))


def exchanged(d_sae: int, penalised: bool) -> float:
    """How many bytes a rank gives to the others in a step, over all ranks and steps on average."""
    training = training_config(steps=20, penalties=PENALTIES if penalised else {}, aux=0.0)
    config, in_steps = crosscoder_config(architecture="topk", d_sae=d_sae, k=2), [ranks.exchanged]

    def progress(done: int, total: int) -> None:
        in_steps.append(ranks.exchanged)

    train_crosscoder(config, training, batches(), RandomMlps(), scaling_of(), progress=progress)
    return ranks.total(in_steps[-1] - in_steps[0]) / training.steps / ranks.world()


def too_many() -> None:
    """A stream of fewer sequences than ranks."""
    batches(SparseSource(sequences=1), batch_tokens=8)


def too_few() -> None:
    """A crosscoder of fewer latents than ranks."""
    config = crosscoder_config(d_sae=2, k=1)
    train_crosscoder(config, training_config(), batches(), RandomMlps(), scaling_of())


def jumprelu() -> None:
    """A nonlinearity that does not train in several processes."""
    training = training_config(sparsity=1.0)
    train_crosscoder(
        crosscoder_config(architecture="jumprelu"), training, batches(), RandomMlps(), scaling_of()
    )


def float32_config(place: Path, **changes) -> RunConfig:
    """A tiny run in float32: bfloat16 rounds products of other shapes in another way."""
    return local_config(place, training={"bfloat16": False}, **changes)


def run(place: str, dies: int | None = None, seed: int = 0) -> None:
    """A tiny run to its evaluation. dies: the rank that kills itself in training. seed: of the first rank."""

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("train") and done == 12 and dies == ranks.rank():
            os._exit(9)

    config = float32_config(Path(place), seed=seed if ranks.rank() == 0 else 0)
    Run(Path(place) / "run", config, device="cpu", progress=progress).evaluate()

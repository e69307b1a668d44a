"""Two processes that train one crosscoder over gloo, against one process that has as many threads.

The embedded model's four MLP inputs, 4,096 latents, BatchTopK, K 16, 1,024 tokens a step, whose harvest
counts; seconds are of a step, after the first ones. The floor is the harvest alone. `value` is the loss of
the last step.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
import torch

from benchmarks.paired import CHECKOUT, Variants
from benchmarks.timing import peak_bytes
from xtalk import ranks
from xtalk.activations import ActivationBatches, Harvest
from xtalk.data.tokens import token_sequences
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.training.config import TrainingConfig
from xtalk.training.quick import train_on

VARIANTS: Variants = ("xtalk", "one process", "harvest")
STEPS, BATCH, LENGTH, WARM_UP, PROCESSES = 40, 1024, 128, 5, 2


def source(small: bool) -> tuple[LanguageModel, Harvest]:
    """The model, and its activations of random tokens."""
    model = load_model("embedded")
    shape = (64 if small else 512, LENGTH)
    tokens_nS = np.random.default_rng(0).integers(0, model.vocabulary, shape, dtype=np.int32)
    hookpoints = [model.hookpoint(f"blocks.{block}.ln2") for block in range(model.n_blocks)]
    return model, Harvest(model, token_sequences(tokens_nS, np.zeros_like(tokens_nS)), hookpoints)


def trained(small: bool) -> dict[str, float]:
    """Train in the processes that there are; seconds of a step, and what all of them used."""
    (model, harvest), marks, log = source(small), list[tuple[float, float]](), list[dict[str, float]]()
    steps, warm_up = (4, 1) if small else (STEPS, WARM_UP)
    train_on(
        harvest,
        model,
        TrainingConfig(steps=steps, batch_tokens=BATCH // (8 if small else 1), warmup_steps=2),
        d_sae=256 if small else 4096,
        k=16,
        log=log.append,
        progress=lambda done, total: marks.append((time.perf_counter(), time.process_time())),
    )
    (began, cpu_began), (ended, cpu_ended) = marks[warm_up - 1], marks[-1]
    cpu_seconds = sum(ranks.each(cpu_ended - cpu_began))
    return {
        "seconds": (ended - began) / (steps - warm_up),
        "cpu_seconds": cpu_seconds / (steps - warm_up),
        "peak_bytes": sum(ranks.each(peak_bytes())),
        "value": log[-1]["recon"],
    }


def harvested(small: bool) -> dict[str, float]:
    """The harvest of a step's tokens."""
    stream, steps = ActivationBatches(source(small)[1], BATCH, seed=0), 1 if small else STEPS
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(stream)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds / steps, "cpu_seconds": cpu / steps, "peak_bytes": peak_bytes(), "value": 0.0}


def measure(variant: str, *, small: bool) -> dict[str, float]:
    """One variant: seconds of a step."""
    if variant != "xtalk":
        return trained(small) if variant == "one process" else harvested(small)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        "--nproc-per-node",
        str(PROCESSES),
        "-m",
        "benchmarks.processes",
        *(["small"] if small else []),
    ]
    threads = max(1, torch.get_num_threads() // PROCESSES)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    found = subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Train as one of the processes; the first prints what was measured."""
    with ranks.joined():
        found = trained("small" in sys.argv)
        if ranks.rank() == 0:
            print(json.dumps(found))


if __name__ == "__main__":
    main()

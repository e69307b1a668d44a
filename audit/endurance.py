"""What lasts long or grows large: whether memory stays flat, and what sizes take.

`python -m audit.endurance training --seconds 600` trains a tiny crosscoder with every penalty and with
checkpoints for that long, and says how memory grew with the steps; `store --tokens 10000000` writes, opens
and reads an activation store of as many tokens; `report --features 1000` draws a report of as many features.
Each prints JSON.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xtalk.activations import ActivationBatches, ActivationStore, Harvest
from xtalk.data.tokens import token_sequences
from xtalk.interactions.penalties import PENALTIES
from xtalk.models.hookpoints import Hookpoint
from xtalk.reports import Metrics, ReportData, Results, read_record
from xtalk.training.train import train_crosscoder

ROOT = Path(__file__).parents[1]
PAGE = 4096 / 1e6  # MB
SAMPLE_EVERY = 0.5  # seconds


class Enough(Exception):
    """The time is up."""


def resident() -> float:
    """The memory of this process, MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def training(seconds: float, folder: Path) -> dict[str, Any]:
    """Train for some seconds; memory in MB after each tenth of the steps, and its slope after the first."""
    from training.tiny_training import (
        RandomMlps,
        SparseSource,
        crosscoder_config,
        scaling_of,
        training_config,
    )

    stream = ActivationBatches(SparseSource(), 64, 0, 16, epochs=1_000_000)
    settings = training_config(
        steps=10**7, penalties=dict.fromkeys(PENALTIES, 0.1), checkpoint_every=200, lr=1e-4
    )
    samples: list[tuple[int, float]] = []
    begun = looked = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal looked
        now = time.monotonic()
        if now - looked >= SAMPLE_EVERY:
            samples.append((done, resident()))
            looked = now
        if now - begun > seconds:
            raise Enough

    with suppress(Enough):
        train_crosscoder(
            crosscoder_config(),
            settings,
            stream,
            RandomMlps(),
            scaling_of(),
            checkpoint_folder=folder,
            progress=progress,
        )
    steps, memory = np.array(samples).T
    late = steps > steps[-1] / 10
    slope = float(np.polyfit(steps[late], memory[late], 1)[0])
    tenths = np.searchsorted(steps, np.linspace(0, steps[-1], 11))
    return {
        "steps": int(steps[-1]),
        "seconds": round(time.monotonic() - begun),
        "samples": len(samples),
        "MB after steps": {int(steps[at]): round(float(memory[at]), 1) for at in tenths},
        "MB for a thousand steps more": round(slope * 1e3, 3),
    }


def store(tokens: int, folder: Path) -> dict[str, Any]:
    """Write a store, open it with its hashes compared, and read a thousand sequences in no order."""
    from activations.fake_model import FakeModel

    S = 256
    numbers = np.arange(-(-tokens // S) * S, dtype=np.int32).reshape(-1, S) % 1000
    sequences = token_sequences(numbers, np.zeros_like(numbers))
    seconds: dict[str, float] = {}

    def timed(what: str, do: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        made = do()
        seconds[what] = round(time.monotonic() - begun, 1)
        return made

    source = Harvest(FakeModel(torch.bfloat16), sequences, [Hookpoint(0, "ln2")])
    stream = ActivationBatches(source, 256, 0, 16)
    timed("write", lambda: ActivationStore.write(folder / "store", stream))
    opened = timed("open", lambda: ActivationStore.open(folder / "store"))
    rows = np.random.default_rng(0).permutation(len(sequences))[:1000]
    read = timed("read", lambda: torch.cat(list(opened.read(rows))))
    expected = torch.cat(list(source.read(rows))).to(read.dtype)
    files = [path.stat().st_size for path in (folder / "store").iterdir()]
    return {
        "tokens": numbers.size,
        "files": len(files),
        "bytes": sum(files),
        "seconds": seconds,
        "as harvested": bool(torch.equal(read, expected)),
        "peak MB": peak(),
    }


def report(features: int, folder: Path) -> dict[str, Any]:
    """Draw the example report with as many features."""
    from xtalk.reports.page import write_report

    example = ROOT / "docs" / "example"
    data = json.loads((example / "report_data.json").read_text())
    data["features"] = [
        data["features"][number % len(data["features"])] | {"latent": number} for number in range(features)
    ]
    (folder / "report_data.json").write_text(json.dumps(data))
    results = Results(
        read_record(example / "metrics.json", Metrics), read_record(folder / "report_data.json", ReportData)
    )
    begun = time.monotonic()
    write_report(results, folder / "report.html", folder / "figures")
    took = round(time.monotonic() - begun, 1)
    size = (folder / "report.html").stat().st_size
    return {"features": features, "bytes": size, "seconds": took, "peak MB": peak()}


def peak() -> int:
    """The most memory that this process had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("training").add_argument("--seconds", type=float, default=600.0)
    what.add_parser("store").add_argument("--tokens", type=int, default=10_000_000)
    what.add_parser("report").add_argument("--features", type=int, default=1000)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))  # whose makers of small things are used here
    folder = Path(tempfile.mkdtemp())
    try:
        if given.what == "training":
            found = training(given.seconds, folder)
        elif given.what == "store":
            found = store(given.tokens, folder)
        else:
            found = report(given.features, folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

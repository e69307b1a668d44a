"""Seconds of training to a keep-one fidelity of 0.80 at a full one of 0.90, against commit 50c32d6.

    python -m benchmarks.headline --text stories.jsonl --held-out-text held_out.jsonl

Both train the embedded model's crosscoder whose figures reach that, by their own pages of results: before,
17 hookpoints, 2,048 latents, K 64, 2,440 steps (docs/results.md); today the MLPs' inputs alone, `TODAY` below
(docs/results-frontier.md). A training here is short, and its seconds count for as many steps as the whole
has: penalties come in at fractions of a training, so that a short one has the same parts. Two threads each,
in turn. The commit is checked out into a temporary folder and runs with this environment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.page import DATA, write
from benchmarks.paired import CHECKOUT

BEFORE, STEPS, BATCH, PAIRS = "50c32d6", 150, 1024, 2
SPARSE = {"keep_one": 16, "full_sum": 6, "keep_one_kl": 44, "full_sum_kl": 12}
INPUTS = [f"blocks.{block}.ln2" for block in range(4)]
COMMON = {"sequence_length": 256, "harvest": {"buffer_sequences": 4}}
RECIPES: dict[str, tuple[int, dict[str, Any]]] = {
    BEFORE: (2440, {"crosscoder": {"d_sae": 2048, "k": 64}}),
    "today": (
        2000,
        {
            "hookpoints": INPUTS,
            "crosscoder": {"d_sae": 4096, "k": 32},
            "training": {"lr": 2e-3, "warmup_steps": 100, "dead_after_tokens": 20_000},
        },
    ),
}
"""Of each: the steps of the whole training, and what its configuration has beside that of both."""

CREATE = """
import json, sys, xtalk
out, changes = sys.argv[1:]
xtalk.RunFolder.create(out, xtalk.preset("quick", **json.loads(changes)))
"""


def trained(tree: Path, folder: Path, changes: Mapping[str, Any]) -> float:
    """Seconds of a step of the crosscoder `sparse`, trained by the package of a checkout."""
    sources = f"{tree / 'src'}:{tree / 'packages/xtalk-check/src'}"
    environment = os.environ | {"PYTHONPATH": sources, "OMP_NUM_THREADS": "2"}

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, check=True)

    run("-c", CREATE, str(folder), json.dumps(changes))
    for step in ("harvest", "train"):
        run("-m", "xtalk", step, "--out", str(folder))
    events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    seen = (event for event in events if event["event"] == "train" and event["crosscoder"] == "sparse")
    return statistics.mean(BATCH / event["tokens_per_second"] for event in seen)  # each of as many steps


def main() -> None:
    """Measure both, and put their seconds and ratio into docs/performance.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", required=True)
    parser.add_argument("--held-out-text", required=True)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parser.parse_args()
    texts = {"text": str(Path(options.text).resolve())}
    texts["held_out_text"] = str(Path(options.held_out_text).resolve())
    specs = [{"name": "unpenalised", "penalties": {}}, {"name": "sparse", "penalties": SPARSE}]
    seconds: dict[str, list[float]] = {name: [] for name in RECIPES}
    with tempfile.TemporaryDirectory() as place:
        before = Path(place) / "before"
        subprocess.run(["git", "worktree", "add", "--detach", before, BEFORE], cwd=CHECKOUT, check=True)
        try:
            for pair in range(options.pairs):
                for name, (steps, recipe) in RECIPES.items():
                    training = {"steps": STEPS, "batch_tokens": BATCH} | recipe.get("training", {})
                    changes = COMMON | recipe | texts | {"training": training, "crosscoders": specs}
                    tree = before if name == BEFORE else CHECKOUT
                    a_step = trained(tree, Path(place) / f"{name}-{pair}", changes)
                    seconds[name].append(a_step * steps)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=CHECKOUT, check=True)
    ratios = [old / new for old, new in zip(seconds[BEFORE], seconds["today"], strict=True)]
    ratio = [statistics.median(ratios), min(ratios), max(ratios)]
    found = json.loads(DATA.read_text()) | {"headline": {"seconds": seconds, "ratio": ratio}}
    DATA.write_text(json.dumps(found, indent=1) + "\n")
    write(found)


if __name__ == "__main__":
    main()

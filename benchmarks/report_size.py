"""The report and the cluster map of a model of 30 blocks and 16,384 latents, as a browser takes them.

`python -m benchmarks.report_size [FOLDER]`: size on disk, time to the first paint, memory, and how long a
table takes to filter and the map to draw, in headless Chromium. The run is made up (tests/reports/synthetic).
"""

import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from xtalk.reports import Results
from xtalk.reports.cluster_map import ClusterRecord, MapRecord, write_cluster_map
from xtalk.reports.data import ReportData
from xtalk.reports.metrics import Metrics
from xtalk.reports.page import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from reports import synthetic
from reports.browser import Page, chromium

BLOCKS, LATENTS, CLUSTER = 30, 16_384, 8
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def large_run() -> Results:
    """Eight crosscoders over 30 blocks, 24 latents of each described, as a run describes them."""
    synthetic.BLOCKS = BLOCKS
    rng = np.random.default_rng(0)
    metrics, data = synthetic.metrics(rng), synthetic.report_data(rng, 24)
    metrics["model"] |= {"blocks": BLOCKS, "ce_mlp_mean_ablated": [3.0] * BLOCKS}
    names = list(synthetic.PENALTIES)
    matrix, features = data["interaction_matrices"][0], data["features"]
    data["interaction_matrices"] = [deepcopy(matrix) | {"crosscoder": name} for name in names]
    data["features"] = [
        deepcopy(features[place % len(features)]) | {"crosscoder": name, "latent": 600 * place + 7}
        for name in names
        for place in range(24)
    ]
    return Results(Metrics.model_validate(metrics), ReportData.model_validate(data))


def large_map() -> tuple[ClusterRecord, MapRecord]:
    """16,384 features in clusters of 8, three contexts each, and the pairs that a map of that size has."""
    rng = np.random.default_rng(0)
    count = LATENTS // CLUSTER
    words = [f" word{i}" for i in range(2000)]

    def context() -> dict[str, Any]:
        tokens = [words[i] for i in rng.integers(0, len(words), 24)]
        return {
            "tokens": tokens,
            "activations": (rng.random(24) * (rng.random(24) < 0.3)).round(3).tolist(),
            "peak": 12,
        }

    places = rng.random((count, 2)) * 400
    features = [
        {
            "latent": i,
            "cluster": i // CLUSTER,
            "x": round(float(places[i // CLUSTER, 0] + rng.normal()), 2),
            "y": round(float(places[i // CLUSTER, 1] + rng.normal()), 2),
            "tokens": [words[t] for t in rng.integers(0, len(words), 6)],
            "promoted": [words[t] for t in rng.integers(0, len(words), 6)],
            "contexts": [context() for _ in range(3)],
        }
        for i in range(LATENTS)
    ]
    lines = [(i, int(j), float(rng.random())) for i in range(LATENTS) for j in rng.integers(0, LATENTS, 2)]
    neurons = [{"block": b, "neuron": 77, "part": 0.1} for b in range(5)]
    tokens = [{"before": " once upon a time there was", "token": " dog"}] * 5
    pairs = [
        {"latents": (i, i + 1 + i % 2), "neurons": neurons, "tokens": tokens}
        for i in range(LATENTS - 2)
        if i % CLUSTER < 6
    ]
    clusters = {
        "schema": "xtalk.clusters/1",
        "crosscoder": "sparse",
        "method": "spectral",
        "normaliser": "total",
        "count": count,
        "judge": "offline",
        "accuracy": {},
        "clusters": [
            {"members": list(range(c * CLUSTER, (c + 1) * CLUSTER)), "accuracy": 0.8} for c in range(count)
        ],
    }
    shown = {"schema": "xtalk.cluster_map/1", "features": features, "lines": lines, "pairs": pairs}
    return ClusterRecord.model_validate(clusters), MapRecord.model_validate(shown)


FILTERED = """(input => {
  input.closest("details").open = true;
  input.value = "full crosscoder 17";
  input.dispatchEvent(new Event("input"));
  document.body.offsetHeight;
})(document.querySelector("details input"))"""
ASKED = {
    "report.html": {"filtering the table of all blocks": FILTERED},
    "clusters.html": {
        "drawing the whole map": "paint()",
        "what the pointer is on": "hit(300, 300)",
        "showing a cluster": "showCluster(7)",
        "a search": "find('word1')",
    },
}
"""What somebody does with a page."""


def say(page: Page, path: Path) -> None:
    """Print what a page takes: size, seconds of its main thread, memory, and what is done with it."""
    page.settle()
    page.send("HeapProfiler.collectGarbage")
    metrics, painted = page.metrics(), page.js(PAINTED) / 1e3
    print(
        f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, first paint after {painted:.2f} s, "
        f"{metrics['TaskDuration']:.2f} s of its thread until ready, {metrics['Nodes']:.0f} nodes, "
        f"{metrics['JSHeapUsedSize'] / 1e6:.1f} MB of scripts"
    )
    for what, action in ASKED[path.name].items():
        before = page.metrics()["TaskDuration"]
        page.js(action)
        print(f"  {what}: {1e3 * (page.metrics()['TaskDuration'] - before):.0f} ms of its thread")
    assert page.faults() == []


def main() -> None:
    """Print what was found."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(made)
        folder.mkdir(exist_ok=True)
        started = time.process_time()
        write_report(large_run(), folder / "report.html", folder / "figures")
        print(f"report written in {time.process_time() - started:.1f} s of one core")
        write_cluster_map(folder / "clusters.html", *large_map())
        with chromium() as browser:
            for name in ASKED:
                say(browser.open(folder / name), folder / name)


if __name__ == "__main__":
    main()

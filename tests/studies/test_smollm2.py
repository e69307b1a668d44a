"""The tables of docs/results-smollm2.md, made of the example report: it has the same crosscoders."""

import json
from pathlib import Path

from studies.real.smollm2 import clusters, fidelities, one_mlp, several_mlps

METRICS = json.loads((Path(__file__).parents[2] / "docs/example/metrics.json").read_text())


def test_a_row_says_what_the_run_measured_at_that_block_against_its_mean_output():
    found = fidelities(METRICS, 2)
    assert {name: (row["block"], row["baseline"]) for name, row in found.items()} == dict.fromkeys(
        ["unpenalised", "paper-300", "sparse"], (2, "mean")
    )
    table = one_mlp([METRICS], 2).splitlines()
    row = next(line for line in table if line.startswith("| Phi, one feature per neuron"))
    assert row.endswith(" | ".join(f"{found[name]['keep_1']:.2f}" for name in found) + " |")


def test_the_table_of_several_mlps_ends_with_all_at_once():
    lines = several_mlps(METRICS).splitlines()
    sparse = fidelities(METRICS, "all")["sparse"]
    assert any(line.startswith("| all") and f"{sparse['keep_1']:.2f} [" in line for line in lines)
    assert sum(line.startswith("| block 1 ") for line in lines) == 3


def test_clusters_are_a_mean_over_seeds():
    kinds = {"any": 0.6, "rate": 0.5, "coactivation": 0.4}
    similarities = ("interaction", "activation", "coactivation", "decoder", "random")

    def seed(more: float):
        return {
            "accuracy": {k: {s: [value + more, 0, 1] for s in similarities} for k, value in kinds.items()}
        }

    assert "| interaction | 0.70 ± " in clusters([seed(0.0), seed(0.2)])

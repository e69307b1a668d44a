"""Certify attention in the setting of Gross et al. 2024 (arXiv 2406.11779), beside figures of their own data.

    python -m studies.proofs.gross --out runs/proofs-gross

Trains a network of each seed as they train theirs, certifies it, runs it on every input, and writes the table
"t3-gross" into docs/proofs/results.md. What is in the folder is not made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from studies import pages
from studies.proofs.page import PAGE
from xtalk.files import write_text
from xtalk.proofs.certificates import certified_in_real_numbers
from xtalk.proofs.config import PositionsConfig
from xtalk.proofs.t3.positions_network import PositionsRunner
from xtalk.proofs.t3.prove_positions import train_positions

# github.com/JasonGross/guarantees-based-mechanistic-interpretability-data, csvs/all-models-*-values.csv at
# 904b6fa (brute force) and 2eab1ad (cubic, subcubic), seed 50, the first of 151: strategy, bound, FLOPs.
THEIRS = (
    ("brute force", 0.9998496174812316, None),
    ("cubic", 0.961512565612793, None),
    ("EUPU-MaxDiffExact, AttnErr-ExactEqke", 0.8382711410522461, 2_528_583),
    ("EUPU-MeanQueryMaxDiff, AttnErr-ExactEqke", 0.7349334955215454, 2_272_487),
    ("EUPU-MeanQueryMaxDiff, AttnErr-MaxDiffSubproductRecursive", 0.3133956789970398, 1_960_838),
)
SEEDS = (0, 1, 2)
OURS = PositionsConfig()
PIECE = 1 << 14  # inputs that are run at a time


def figures(seed: int, folder: Path) -> dict[str, Any]:
    """The certificate of a network in their setting, and on how many of all inputs it is right."""
    path = folder / f"{seed}.figures.json"
    if not path.exists():
        network, task = train_positions(OURS.model_copy(update={"seed": seed}))
        certificate = network.certify(task)
        certificate.save(folder, str(seed))
        length = certificate.verdict.length
        runner = PositionsRunner(network, task)
        row = {
            "bound": certificate.claim["certified"] / task.total,
            "real": (certified_in_real_numbers(certificate) or 0) / task.total,
            "true": sum(right for right, _ in runner.run(PIECE)) / task.total,
            "macs": length.multiply_adds,
            "evaluations": length.evaluations,
            "seconds": certificate.cpu_seconds,
        }
        write_text(path, json.dumps(row, indent=1) + "\n")
        print(seed, row, flush=True)
    return json.loads(path.read_text())


def table(found: dict[int, dict[str, Any]]) -> str:
    lines = ["| whose | proof | certified | true | FLOPs | check |", "|---|---|---|---|---|---|"]
    for strategy, bound, flops in THEIRS:
        cost = "" if flops is None else f"{flops:,}"
        lines.append(f"| Gross et al., seed 50 | {strategy} | {bound:.4f} | {THEIRS[0][1]:.4f} | {cost} | |")
    for seed, row in found.items():
        flops = 2 * row["macs"] + row["evaluations"]
        lines.append(
            f"| here, seed {seed} | T3 positions | **{row['bound']:.4f}** in float32, {row['real']:.4f} in "
            f"real arithmetic | {row['true']:.4f} | {flops:,} | {row['seconds']:.2f} s |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-gross"))
    torch.set_num_threads(1)
    out = parser.parse_args(argv).out
    found = {seed: figures(seed, out) for seed in SEEDS}
    pages.write_table(PAGE, "t3-gross", table(found))


if __name__ == "__main__":
    main()

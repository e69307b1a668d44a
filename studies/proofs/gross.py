"""Certify attention on the task of Gross et al. 2024 (arXiv 2406.11779), beside figures of their own data.

    python -m studies.proofs.gross --out runs/proofs-gross

Writes the table "t3-gross" into docs/proofs/results.md. What is in the folder is not made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from studies import pages
from studies.proofs.page import PAGE
from xtalk.files import write_text
from xtalk.proofs.config import ProveConfig
from xtalk.proofs.t3.prove import prove_sequences

# github.com/JasonGross/guarantees-based-mechanistic-interpretability-data, csvs/all-models-*-values.csv at
# 904b6fa (brute force) and 2eab1ad (cubic, subcubic), seed 50, the first of 151: strategy, bound, FLOPs.
THEIRS = (
    ("brute force", 0.9998496174812316, None),
    ("cubic", 0.961512565612793, None),
    ("EUPU-MaxDiffExact, AttnErr-ExactEqke", 0.8382711410522461, 2_528_583),
    ("EUPU-MeanQueryMaxDiff, AttnErr-ExactEqke", 0.7349334955215454, 2_272_487),
    ("EUPU-MeanQueryMaxDiff, AttnErr-MaxDiffSubproductRecursive", 0.3133956789970398, 1_960_838),
)
OURS = ProveConfig(network="attention", post_hoc=True, vocabulary=64, classes=64, dictionary=64, n=4)


def ours(folder: Path) -> dict[str, Any]:
    """The certificate and its figures, made now unless they are there."""
    path = folder / "row.json"
    if not path.exists():
        proof = prove_sequences(OURS)
        row = proof.row(proof.certificate.save(folder, "max-4-of-64-classes")).as_json()
        write_text(path, json.dumps(row, indent=1) + "\n")
    return json.loads(path.read_text())


def table(row: dict[str, Any]) -> str:
    lines = ["| whose | proof | certified | cost |", "|---|---|---|---|"]
    for strategy, bound, flops in THEIRS:
        cost = "" if flops is None else f"{flops:,} FLOPs"
        lines.append(f"| Gross et al., seed 50 | {strategy} | {bound:.4f} | {cost} |")
    low, high = row["true"]["ci95"]
    lines += [
        f"| here | brute force, counted | {row['true']['value']:.4f} ({low:.4f} to {high:.4f}), measured | "
        f"{row['brute_force_macs']:,} multiply-adds |",
        f"| here | T3 attention, tokens, float32 | {row['bound']:.4f} | {row['macs']:,} "
        f"multiply-adds, {row['evaluations']:,} evaluations, checked in {row['check_seconds']:.0f} s |",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-gross"))
    torch.set_num_threads(1)
    row = ours(parser.parse_args(argv).out)
    pages.write_table(PAGE, "t3-gross", table(row))


if __name__ == "__main__":
    main()

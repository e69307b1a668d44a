"""Make the certificates of theorem T3 for attention, and write their table into docs/proofs/results.md.

    python -m studies.proofs.attention --out runs/proofs-attention

The networks are trained for the task alone. What is in the folder is not made again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from studies import pages
from studies.proofs.page import PAGE
from xtalk.files import write_text
from xtalk.proofs.config import ProveConfig
from xtalk.proofs.t3.detail import ALIKE
from xtalk.proofs.t3.measuring import constant_answer, measure
from xtalk.proofs.t3.prove import train_attention

SAMPLES = 100_000
SEEDS = (0, 1, 2)
STUDIES: dict[str, dict[str, Any]] = {
    "max of 4, 64 tokens": {"task": "max", "n": 4, "vocabulary": 64, "classes": 8, "dictionary": 16},
    "max of 8, 64 tokens": {"task": "max", "n": 8, "vocabulary": 64, "classes": 8, "dictionary": 16},
    "min of 4, 128 tokens": {"task": "min", "n": 4, "vocabulary": 128, "classes": 16, "dictionary": 32},
}


def study(name: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The certificates of one network and what stands beside them, made now unless they are there."""
    path = folder / "rows.json"
    if path.exists():
        return json.loads(path.read_text())
    subject = train_attention(ProveConfig(**STUDIES[name], network="attention", post_hoc=True, seed=seed))
    task, network, dictionary = subject.task, subject.network, subject.dictionary
    beside = {
        "true": measure(network, task, SAMPLES, seed + 1000).value,
        "ablated": measure(network, task, SAMPLES, seed + 1000, ablated=True).value,
        "constant": constant_answer(task, SAMPLES, seed + 1000),
        "inputs": task.total,
        "tokens": task.vocabulary,
        "features": dictionary.features,
        "columns": len(dictionary.columns),
        "brute_force": network.brute_force_multiply_adds(task),
    }
    rows: list[dict[str, Any]] = []
    for alike in ALIKE:
        certificate = network.certify(task, dictionary.columns, alike)
        certificate.save(folder, alike.replace(" ", "-"))
        rows.append(
            beside
            | {
                "alike": alike,
                "bound": certificate.claim["certified"] / certificate.claim["total"],
                "macs": certificate.verdict.length.multiply_adds,
                "evaluations": certificate.verdict.length.evaluations,
                "seconds": certificate.verdict.seconds,
            }
        )
        print(name, seed, rows[-1], flush=True)
    write_text(path, json.dumps(rows, indent=1) + "\n")
    return rows


def table(studies: dict[str, list[list[dict[str, Any]]]]) -> str:
    lines = [
        "| network | inputs | tokens / features / columns | alike | certified, float32, seeds 0 to 2 "
        "| mean | true, least | ablated | best constant | multiply-adds | brute force | times fewer "
        "| check |",
        "|---" * 13 + "|",
    ]
    for name, by_seed in studies.items():
        for place, alike in enumerate(ALIKE):
            rows = [rows[place] for rows in by_seed]
            first, bounds = rows[0], [row["bound"] for row in rows]
            vacuous = " VACUOUS" if mean(bounds) <= first["constant"] else ""
            sizes = ", ".join(f"{row['tokens']} / {row['features']} / {row['columns']}" for row in rows[:1])
            lines.append(
                f"| {name} | {first['inputs']:.2g} | {sizes} | {alike} | "
                f"{', '.join(f'{bound:.4f}' for bound in bounds)} | "
                f"{pages.over_seeds(bounds, 4, bold=True)}{vacuous} | "
                f"{min(row['true'] for row in rows):.5f} | {first['ablated']:.3f} | "
                f"{first['constant']:.3f} | {first['macs']:.3g} | {first['brute_force']:.3g} | "
                f"{first['brute_force'] / first['macs']:.3g} | "
                f"{first['seconds']:.2g} s |"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-attention"))
    out = parser.parse_args(argv).out
    torch.set_num_threads(1)
    studies = {
        name: [study(name, seed, out / name.replace(",", "").replace(" ", "-") / str(seed)) for seed in SEEDS]
        for name in STUDIES
    }
    pages.write_table(PAGE, "t3-attention", table(studies))


if __name__ == "__main__":
    main()

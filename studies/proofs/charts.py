"""Certify ordinarily trained digits networks by theorem T1's form "charts", for docs/proofs/results.md.

    python -m studies.proofs.charts --out runs/proofs-charts

The networks are trained for the task alone, half a minute for all. What is in the folder is not made again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studies import pages
from studies.proofs.finite import FEW, cost, shorter_from
from studies.proofs.page import PAGE
from xtalk.files import write_text
from xtalk.proofs.t1.certificate import certify_exactly
from xtalk.proofs.t1.charts import Charts, certify_by_charts, charts_of
from xtalk.proofs.t1.digits import Split, digits, load_digits_network, train_ordinary_digits
from xtalk.proofs.t1.network import FiniteNetwork, FiniteSizes, accuracy
from xtalk.proofs.t1.training import FiniteTraining

SEEDS = (0, 1, 2)
PER_LABEL = (0, 1, 2, 4)  # 0: every label's chart at the mean of all images


@dataclass(frozen=True)
class Study:
    """Networks of one size, trained in one way; `None`: the proof-aware network that ships."""

    name: str
    sizes: FiniteSizes
    training: FiniteTraining | None
    seeds: tuple[int, ...] = SEEDS


STUDIES = (
    Study("post-hoc, D = 24", FiniteSizes(64, 10, 24, 192), FiniteTraining(bound=0.0)),
    Study(
        "ordinary, D = 8",
        FiniteSizes(64, 10, 8, 64),
        FiniteTraining(bound=0.0, direct=0.0, reconstruction=0.0, decay=5e-3),
    ),
    Study("seed-0, proof-aware", FiniteSizes(64, 10, 24, 192), None, SEEDS[:1]),
)


def trained(study: Study, seed: int, data: Split) -> FiniteNetwork:
    """The network of studies/embedded/train_digits.py --post-hoc, or of another size and weight decay."""
    if study.training is None:
        return load_digits_network()[0].requires_grad_(False)
    return train_ordinary_digits(data, replace(study.training, seed=seed), sizes=study.sizes)[0]


def charts_at(network: FiniteNetwork, data: Split, per_label: int, seed: int) -> Charts:
    """The charts of a certificate; with none per label, all at the mean, and as wide as the images."""
    if per_label:
        return charts_of(network, data.train_RI, data.train_labels_R, per_label, seed)
    x_RD = network.embedded(data.train_RI).double()
    labels, points = torch.arange(10), x_RD.mean(0).expand(10, -1)
    return Charts(labels, points, (x_RD - points[0]).norm(dim=1).quantile(0.95).expand(10))


@torch.no_grad()
def first_order(network: FiniteNetwork, charts: Charts, data: Split) -> float:
    """What is certified, in float64, at the same points by tangents and the curvature's global bound."""
    wide = network.double()
    x_TD, out_NC, labels_T = (
        wide.embedded(data.test_TI.double()),
        wide.w_out @ wide.unembed,
        data.test_labels_T,
    )
    best_T = torch.full((len(x_TD),), -torch.inf, dtype=torch.float64)
    for label, point_D in zip(charts.labels_M.tolist(), charts.points_MD, strict=True):
        c_N, r_TN = point_D @ wide.w_in + wide.b_in, (x_TD - point_D) @ wide.w_in
        active_TN = wide.activation(c_N) + wide.slope(c_N) * r_TN
        logits_TC = wide.logits(x_TD, active_TN @ wide.w_out + wide.b_out)
        charge_TC = wide.activation.curvature / 2 * r_TN.square() @ (out_NC[:, [label]] - out_NC).abs()
        least_T = least(logits_TC[:, [label]] - logits_TC - charge_TC, torch.full_like(labels_T, label))
        best_T = torch.where(labels_T == label, torch.maximum(best_T, least_T), best_T)
    network.float()
    return (best_T > 0).double().mean().item()


def least(margins_TC: Tensor, labels_T: Tensor) -> Tensor:
    """The least margin over a wrong answer."""
    return margins_TC.scatter(1, labels_T[:, None], torch.inf).amin(1)


def study_rows(study: Study, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The certificates of one network and what stands beside them, made now unless they are there."""
    path = folder / "rows.json"
    if path.exists():
        return json.loads(path.read_text())
    data = digits(seed)
    network = trained(study, seed, data)
    test = (data.test_TI, data.test_labels_T)
    beside = {mlp: accuracy(network, *test, data.train_RI, mlp) for mlp in ("whole", "linear", "ablated")}

    def brute(rows: list[int] | slice) -> Any:
        inputs, labels = (part[rows] for part in test)
        return certify_exactly(network, inputs, labels).verdict.length

    exact = cost(brute(slice(None)), brute(FEW), brute(FEW * 2))
    rows: list[dict[str, Any]] = []
    for per_label in PER_LABEL:
        charts = charts_at(network, data, per_label, seed)
        made = certify_by_charts(network, charts, *test)
        made.save(folder, f"charts-{per_label}")
        few = [
            certify_by_charts(network, charts, test[0][chosen], test[1][chosen]).verdict.length
            for chosen in (FEW, FEW * 2)
        ]
        claim, length = made.claim, made.verdict.length
        rows.append(
            beside
            | {
                "charts": len(charts.labels_M),
                "per_label": per_label,
                "bound": claim["certified"] / claim["total"],
                "first_order": first_order(network, charts, data),
                "macs": length.multiply_adds,
                "evaluations": length.evaluations,
                "shorter_from": shorter_from(exact, cost(length, *few)),
                "seconds": made.verdict.seconds,
            }
        )
        print(study.name, seed, rows[-1], flush=True)
    write_text(path, json.dumps(rows, indent=1) + "\n")
    return rows


def table(found: dict[str, list[list[dict[str, Any]]]]) -> str:
    lines = [
        "| network | true / MLP linearised / ablated | charts | certified, float32, by seed | mean "
        "| first order, there "
        "| multiply-adds | shorter from | check |",
        "|---" * 9 + "|",
    ]
    for name, by_seed in found.items():
        for place in range(len(PER_LABEL)):
            rows = [rows[place] for rows in by_seed]
            first, bounds = rows[0], [row["bound"] for row in rows]
            empty = sum(row["bound"] <= row["ablated"] for row in rows)
            vacuous = f" VACUOUS for {empty} of {len(rows)}" if empty else ""
            truth = " / ".join(f"{first[mlp]:.3f}" for mlp in ("whole", "linear", "ablated"))
            lines.append(
                f"| {name} | {truth} | {first['charts']}{'' if first['per_label'] else ' at one point'} | "
                f"{', '.join(f'{bound:.4f}' for bound in bounds)} | "
                f"{pages.over_seeds(bounds, 4, bold=True) if len(bounds) > 1 else ''}{vacuous} | "
                f"{first['first_order']:.4f} | "
                f"{first['macs']:,} | {first['shorter_from']} | {first['seconds']:.2g} s |"
            )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-charts"))
    out = parser.parse_args(argv).out
    torch.set_num_threads(1)
    found = {
        study.name: [
            study_rows(study, seed, out / study.name.replace(" ", "").replace(",", "-") / str(seed))
            for seed in study.seeds
        ]
        for study in STUDIES
    }
    pages.write_table(PAGE, "t1-charts", table(found))


if __name__ == "__main__":
    main()

"""Make the certificates of theorem T3, and write their tables into docs/proofs/results.md, and the figure.

    python -m studies.proofs.sequences --out runs/proofs

Every result has a folder of its own, with the certificate and its files; what is there is not made again, so
that the same command goes on where it was stopped.
"""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from studies import pages
from studies.proofs.page import PAGE
from xtalk.files import write_text
from xtalk.progress import Report, progress_bars
from xtalk.proofs.config import ProveConfig
from xtalk.proofs.t3.detail import Detail
from xtalk.proofs.t3.prove import measure_subject, sequences_proof, train_sum

ROWS = "rows.json"
FIGURE = Path("docs/figures/length-tightness.png")
SEEDS = (1, 2, 3, 4)  # of the two headlines, beside seed 0
BIG: dict[str, Any] = {"vocabulary": 512, "classes": 16, "dictionary": 64, "aware_steps": 1000}
MIDDLE: dict[str, Any] = {"vocabulary": 128, "classes": 16, "dictionary": 16}
SMALL: dict[str, Any] = {"n": 3, "vocabulary": 64, "classes": 8, "dictionary": 8}
SHORT, COMPACT = Detail(), Detail(tokens=False)
CURVE = (None, "all", Detail(blocks=4), Detail(token_anchors=True), SHORT, COMPACT)
PLAIN: dict[str, Any] = {"post_hoc": True, "residual": False}
STUDIES: dict[str, tuple[ProveConfig, tuple[Detail | Literal["all"] | None, ...]]] = {
    "max, proof-aware": (ProveConfig(**BIG), (SHORT, COMPACT)),
    "max": (ProveConfig(**BIG, **PLAIN), (SHORT,)),
    "max, V = 64": (ProveConfig(**SMALL, **PLAIN), CURVE),
    "max, V = 64, proof-aware": (ProveConfig(**SMALL), CURVE[1:]),
    "min": (ProveConfig(task="min", **MIDDLE, **PLAIN), (SHORT,)),
    "majority": (ProveConfig(task="majority", n=3, **MIDDLE, **PLAIN), (SHORT,)),
    "lookup": (
        ProveConfig(task="lookup", vocabulary=192, classes=8, dictionary=24, network_steps=3000, **PLAIN),
        (SHORT,),
    ),
    "modular addition": (
        ProveConfig(
            task="modular_addition",
            n=3,
            vocabulary=112,
            classes=7,
            dictionary=14,
            network_steps=4000,
            **PLAIN,
        ),
        ("all",),
    ),
    "max, no two tokens alike": (
        ProveConfig(vocabulary=64, classes=64, dictionary=32, **PLAIN),
        (SHORT,),
    ),
    "max, V = 64, GELU": (ProveConfig(**SMALL, **PLAIN, activation="gelu"), (SHORT,)),
    "max, residual path": (ProveConfig(**BIG, post_hoc=True), (SHORT,)),
}
HEADLINES = {"max, proof-aware": ("tokens", "columns"), "max": ("tokens",)}
STUDIES.update(
    {
        f"{name}, seed {seed}": (STUDIES[name][0].model_copy(update={"seed": seed}), STUDIES[name][1])
        for name in HEADLINES
        for seed in SEEDS
    }
)


def folder_of(name: str, out: Path) -> Path:
    """Where a study's certificates and figures lie."""
    return out / re.sub(r"[^a-z0-9]+", "-", name.lower())


def rows_of(name: str, out: Path, progress: Report) -> list[dict[str, Any]]:
    """The figures of a study, made now unless they are there."""
    folder = folder_of(name, out)
    if (folder / ROWS).exists():
        return json.loads((folder / ROWS).read_text())
    config, details = STUDIES[name]
    began = time.monotonic()
    subject = train_sum(config, progress=progress)
    network, columns = subject.network, subject.dictionary.columns
    truth = measure_subject(subject)
    rows: list[dict[str, Any]] = []
    for number, detail in enumerate(details):
        if detail is None:
            certificate = network.certify_by_brute_force(subject.task)
        else:
            chosen = Detail(blocks=len(columns)) if detail == "all" else detail
            certificate = network.certify(subject.task, columns, chosen)
        proof = sequences_proof(subject, truth, certificate)
        path = proof.certificate.save(folder, f"certificate-{number}")
        rows.append(proof.row(path).as_json() | {"detail": words(detail)})
        print(f"{name}, {words(detail)}: {proof.bound:.5f}, {time.monotonic() - began:.0f} s", flush=True)
    write_text(folder / ROWS, json.dumps(rows, indent=1) + "\n")
    return rows


def words(detail: Detail | Literal["all"] | None) -> str:
    """A level of detail, for people."""
    if detail is None:
        return "every input"
    if detail == "all":
        return "every multiset of columns"
    if detail.blocks > 1:
        return f"tokens, {detail.blocks} blocks"
    if detail.token_anchors:
        return "tokens, each an anchor"
    return "tokens" if detail.tokens else "columns"


def results(studies: dict[str, list[dict[str, Any]]]) -> str:
    """The table of all studies at their shortest certificates."""
    head = (
        "| network | n | inputs | tokens / features / columns | detail | certified, float32 "
        "| lost to rounding | true | without the MLP | best constant | multiply-adds | brute force "
        "| times fewer | break-even inputs | check |"
    )
    lines = [head, "|---" * 15 + "|"]
    for name, rows in studies.items():
        if "seed" in name:
            continue
        if name.startswith("max, V = 64") and "GELU" not in name:
            rows = [row for row in rows if row["detail"] in ("tokens", "columns")]
        for row in rows:
            lines.append(
                f"| {name} | {STUDIES[name][0].n} | {row['claim']['total']:.2g} | "
                f"{row['vocabulary']} / {row['features']} / "
                f"{row['columns']} | {row['detail']} | {bound(row)} | {lost(row)} | {figure(row['true'])} | "
                f"{row['mlp_ablated']['value']:.3f} | {row['constant_answer']:.3f} | {row['macs']:.3g} | "
                f"{row['brute_force_macs']:.3g} | {row['brute_force_macs'] / row['macs']:.3g} | "
                f"{row['break_even_inputs']:,} | {row['check_cpu_seconds']:.2g} s |"
            )
    return "\n".join(lines)


def bound(row: dict[str, Any]) -> str:
    """What is certified; vacuous marked as such."""
    return f"**{row['bound']:.5f}**" + (" VACUOUS" if row["vacuous"] else "")


def lost(row: dict[str, Any]) -> str:
    """How many inputs are certified of the real-valued network alone."""
    return f"{row['certified_in_real_numbers'] - row['claim']['certified']:,}"


def figure(measured: dict[str, Any]) -> str:
    """A measured fraction with its interval, or exact."""
    low, high = measured["ci95"]
    return f"{measured['value']:.5f} " + (
        "(exact)" if measured["exhaustive"] else f"({low:.5f} to {high:.5f})"
    )


def curve(studies: dict[str, list[dict[str, Any]]]) -> str:
    """The length/tightness table of the networks with V = 64."""
    lines = [
        "| network | detail | certified, float32 | multiply-adds | evaluations "
        "| times shorter than every input |",
        "|---" * 6 + "|",
    ]
    for name in ("max, V = 64", "max, V = 64, proof-aware"):
        for row in studies.get(name, []):
            ratio = row["brute_force_macs"] / row["macs"]
            lines.append(
                f"| {name} | {row['detail']} | {row['bound']:.5f} | {row['macs']:,} | "
                f"{row['evaluations']:,} | {ratio:.3g} |"
            )
    return "\n".join(lines)


def seeds(studies: dict[str, list[dict[str, Any]]]) -> str:
    """The headlines over seeds: each, their mean and its 95 % interval (Student's t)."""
    lines = [
        "| network | detail | certified, float32, seeds 0 to 4 | mean | true, least | multiply-adds |",
        "|---" * 6 + "|",
    ]
    for name, details in HEADLINES.items():
        names = [name, *(f"{name}, seed {seed}" for seed in SEEDS)]
        if not all(seed in studies for seed in names):
            continue
        for detail in details:
            rows = [row for seed in names for row in studies[seed] if row["detail"] == detail]
            bounds, macs = [row["bound"] for row in rows], [row["macs"] for row in rows]
            lines.append(
                f"| {name} | {detail} | {', '.join(f'{bound:.5f}' for bound in bounds)} | "
                f"{pages.over_seeds(bounds, 4, bold=True)} | "
                f"{min(row['true']['value'] for row in rows):.5f} | "
                f"{min(macs):.2g} to {max(macs):.2g} |"
            )
    return "\n".join(lines)


def draw(studies: dict[str, list[dict[str, Any]]]) -> None:
    """The length/tightness figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plot, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, label in (("max, V = 64", "ordinary training"), ("max, V = 64, proof-aware", "proof-aware")):
        rows = sorted(studies.get(name, []), key=lambda row: row["macs"])
        axes.plot([row["macs"] for row in rows], [row["bound"] for row in rows], "o-", label=label)
    axes.set(
        xscale="log", xlabel="length: counted multiply-adds", ylabel="certified accuracy", ylim=(0, 1.02)
    )
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(FIGURE, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs"))
    parser.add_argument("--only", nargs="*", choices=STUDIES, help="make only these")
    options = parser.parse_args(argv)
    with progress_bars() as progress:
        for name in options.only or STUDIES:
            rows_of(name, options.out, progress)
        there = [name for name in STUDIES if (folder_of(name, options.out) / ROWS).exists()]
        studies = {name: rows_of(name, options.out, progress) for name in there}
    for marker, make in (("t3-results", results), ("t3-seeds", seeds), ("t3-curve", curve)):
        pages.write_table(PAGE, marker, make(studies))
    draw(studies)


if __name__ == "__main__":
    main()

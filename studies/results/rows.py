"""The figures of a run's crosscoder in one flat row, and what the pages of results make of rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from studies import pages
from xtalk.progress import progress_bars
from xtalk.runs import layout
from xtalk.runs.folder import RunFolder
from xtalk.runs.pipeline import Pipeline
from xtalk.runs.workbench import Workbench

Row = Mapping[str, float]
TOGETHER = ("all", "all_with_0")


def evaluate(folder: RunFolder, name: str) -> None:
    """Do what is missing until one crosscoder of a run is trained and evaluated, and nothing else."""
    with progress_bars() as progress, folder.locked():
        Pipeline(folder).update([f"evaluate/{name}"], Workbench(folder, "cpu"), progress)


def is_evaluated(folder: RunFolder, name: str) -> bool:
    """Whether the figures of a crosscoder are there."""
    return folder.file(layout.evaluation(name)).exists()


def figures(folder: RunFolder, name: str) -> Row:
    """The figures of one evaluated crosscoder of a run: `measured`, sizes, seconds of training."""
    config = folder.config
    tokens = config.training.steps * config.training.batch_tokens
    rate = folder.read_json(layout.training(name))["tokens_per_second"]
    sizes = {"latents": config.crosscoder.d_sae, "k": config.crosscoder.k, "tokens": tokens}
    record = folder.read_json(layout.evaluation(name))["metrics"]
    return {**measured(record), **sizes, "seconds": tokens / rate}


def measured(record: Mapping[str, Any]) -> dict[str, float]:
    """Shares and fidelities of a crosscoder as metrics.json has it.

    Fidelities are Phi_mean by SCHEME/RESID_MID, the mean over blocks 1 and up; of all MLPs rebuilt at once
    SCHEME/all and SCHEME/all_with_0.
    """
    row = {key: float(record[key]) for key in ("dominant_share", "interaction", "fvu", "l0", "dead")}
    for found in record["fidelity_mean"]:
        if found["baseline"] == "mean":
            row |= {f"{scheme}/{found['resid_mid']}": phi[0] for scheme, phi in found["plain"].items()}
    for found in record["fidelity"]:
        if found["block"] in TOGETHER:
            row |= {f"{scheme}/{found['block']}": found[scheme] for scheme in found["ce"]}
    return row


def cell(rows: Sequence[Row], key: str, digits: int = 2) -> str:
    """A figure over seeds; a dash where it is not there."""
    values = [row[key] for row in rows if key in row]
    return pages.over_seeds(values, digits) if values else "-"


def frontier(found: Mapping[str, Sequence[Row]]) -> Figure:
    """Fidelity and interaction against dominant share, a point for each crosscoder and seed."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    phi, interaction = figure.subplots(1, 2)
    for place, (name, rows) in enumerate(found.items()):
        look = {"color": f"C{place}", "linestyle": "none", "marker": "osD^vP*X<>"[place % 10]}
        share = [row["dominant_share"] for row in rows]
        phi.plot(share, [row["keep_1/model"] for row in rows], **look)
        phi.plot(share, [row["full/model"] for row in rows], **look, markerfacecolor="white")
        interaction.plot(share, [row["interaction"] for row in rows], **look, label=name)
    phi.axhline(0, color="0.6", linewidth=0.8)
    phi.set(
        xlim=(0, 1),
        ylim=(-1, 1),
        xlabel="dominant share",
        ylabel="$\\Phi_{mean}$; filled: keep 1, hollow: all",
    )
    interaction.set(xlim=(0, 1), yscale="log", xlabel="dominant share", ylabel="interaction $T$")
    figure.legend(loc="outside right upper")
    return figure

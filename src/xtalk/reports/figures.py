"""The figures of a run, from its metrics.json and report_data.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.markers import CARETDOWN
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from xtalk.reports import style
from xtalk.reports.data import SCHEMES, Baseline, InteractionMatrix, Interval, ResidMid, Scheme
from xtalk.reports.html import Spot
from xtalk.reports.metrics import CrosscoderMetrics
from xtalk.reports.results import Results
from xtalk.reports.style import Plate, plain
from xtalk.reports.wording import (
    PAPERS_PENALTY,
    SCHEME_WORDS,
    SITE_WORDS,
    bounds,
    number,
    penalties,
    penalty_kind,
    significant,
    visible,
)

PHI = {"mean": r"$\Phi_\mathrm{mean}$", "zero": r"$\Phi_\mathrm{zero}$"}
WORSE = "worse than ablating the MLP"
PHI_FLOOR = -1.0  # below it a scheme is useless either way; drawing it to scale would flatten everything else
NORMALISERS = {"none": "", "co_occurrence": ", per active co-occurrence", "relative": ", relative"}
SIDES = {
    "mlp": ("dominant at the neuron", "not dominant"),
    "qk": ("read by the query", "read by the key"),
    "ov": ("in the destination", "in the source"),
    "norm": ("either of two", "either of two"),
}
BASELINES: tuple[Baseline, ...] = ("mean", "zero")


@dataclass(frozen=True)
class Drawn:
    """A figure's files, PNG and SVG, and what stands where in it."""

    png: Path
    svg: Path
    spots: list[Spot]


def write_figures(results: Results, folder: Path) -> dict[str, Drawn]:
    """Writes every figure that the run has data for into a folder, and returns them by name.

    The same data gives the same bytes.
    """
    folder.mkdir(exist_ok=True)
    with style.figure_style():
        return {
            name: Drawn(*style.save(figure, folder, name), figure.spots())
            for name, figure in draw(results).items()
        }


def draw(results: Results) -> dict[str, Plate]:
    """The figures by file name; those without data are left out."""
    swept = {"sweep": sweep(results), "frontier": frontier(results)} if results.data.kind == "run" else {}
    figures = swept | {"ablations": ablations(results)}
    if results.data.few_hot:
        figures["few_hot"] = few_hot(results)
    for place, matrix in enumerate(results.data.interaction_matrices):
        figures[f"interaction_matrix_{place}"] = interaction_matrix(results, matrix)
    if results.data.tightness:
        figures["tightness"] = tightness(results)
    return figures


def sweep(results: Results) -> Plate:
    """Dominant share, reconstruction and fidelity on either baseline against the paper's lambda."""
    figure = Plate(figsize=(style.PAGE, 5.0))
    (share, recon), fidelity = figure.subplots(2, 2)
    for row in fidelity[1:]:
        row.sharey(fidelity[0])
    families = _families(results)
    for place, (family, members) in enumerate(families.items()):
        colour, marker = style.look(place)
        lambdas = [member.penalties.get(PAPERS_PENALTY, 0.0) for member in members]
        look = {"color": colour, "marker": marker, "linestyle": _linestyle(lambdas)}
        share.plot(lambdas, [member.dominant_share for member in members], label=family, **look)
        recon.plot(lambdas, [member.recon for member in members], **look)
        for x, one in zip(lambdas, members, strict=True):
            figure.mark(share, x, one.dominant_share, f"{one.name}: share {number(one.dominant_share)}")
            figure.mark(recon, x, one.recon, f"{one.name}: recon {significant(one.recon)}")
        for axes, baseline in zip(fidelity, BASELINES, strict=True):
            for scheme in ("full", "keep_1"):
                intervals = [_phi(results, member.name, "model", baseline)[scheme] for member in members]
                _curve(axes, lambdas, intervals, colour, marker, hollow=scheme == "full")
                _mark_curve(axes, lambdas, intervals, [f"{m.name}, {SCHEME_WORDS[scheme]}" for m in members])
    share.set(title="a  Dominant share", ylabel="dominant share", ylim=(0, 1))
    recon.set(title="b  Reconstruction", ylabel="recon (squared error)")
    recon.set_ylim(bottom=0)
    fidelity[0].set(title=f"c  Fidelity, fixed baseline ({PHI['mean']})", ylabel="fidelity")
    fidelity[1].set(title=f"d  Fidelity, the paper's baseline ({PHI['zero']})")
    shaded = _phi_axes(*fidelity)
    _lambda_axes([share, recon, *fidelity], families)
    handles, labels = share.get_legend_handles_labels()
    for hollow, label in ((False, "c, d: keep 1"), (True, "c, d: all features")):
        (handle,) = share.plot([], [], color=style.GREY, marker="o", **_fill(hollow))
        handles, labels = [*handles, handle], [*labels, label]
    figure.legend([*handles, *shaded], [*labels, WORSE], loc="outside upper center", ncols=3)
    return figure


def _families(results: Results) -> dict[str, list[CrosscoderMetrics]]:
    """The crosscoders that differ in lambda alone, by their other penalties, each sorted by lambda."""
    families: dict[str, list[CrosscoderMetrics]] = {}
    for crosscoder in results.metrics.crosscoders:
        others = {key: weight for key, weight in crosscoder.penalties.items() if key != PAPERS_PENALTY}
        label = f"λ with {penalties(others)}" if others else "λ alone"
        families.setdefault(label, []).append(crosscoder)
    swept = {
        label: sorted(members, key=lambda member: member.penalties.get(PAPERS_PENALTY, 0.0))
        for label, members in families.items()
        if label == "λ alone" or any(PAPERS_PENALTY in member.penalties for member in members)
    }
    return dict(sorted(swept.items(), key=lambda item: (item[0] != "λ alone", item[0])))


def _linestyle(lambdas: list[float]) -> str:
    return "-" if len(set(lambdas)) == len(lambdas) else "none"  # a line through repeats would zigzag


def _lambda_axes(panels: list[Axes], families: dict[str, list[CrosscoderMetrics]]) -> None:
    values = sorted({c.penalties.get(PAPERS_PENALTY, 0.0) for members in families.values() for c in members})
    positive = [value for value in values if value > 0]
    for axes in panels:
        axes.set_xlabel("penalty weight λ")
        if positive:
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
            axes.set_xlim(-0.2 * positive[0], 1.5 * positive[-1])
        axes.xaxis.set_major_locator(FixedLocator(_readable_ticks(values)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())


def _readable_ticks(values: list[float]) -> list[float]:
    """The swept values, fewer of them where their labels would touch."""
    ticks: list[float] = []
    for value in values:
        if not ticks or ticks[-1] == 0 or value >= 2.2 * ticks[-1]:
            ticks.append(value)
    return ticks


def frontier(results: Results) -> Plate:
    """Keep-one fidelity (filled) and full fidelity (hollow) against dominant share, by kind of penalty."""
    figure = Plate(figsize=(style.PAGE * 0.75, 3.4))
    axes = figure.subplots()
    crosscoders = results.metrics.crosscoders
    kinds = list(dict.fromkeys(penalty_kind(crosscoder.penalties) for crosscoder in crosscoders))
    for crosscoder in crosscoders:
        colour, marker = style.look(kinds.index(penalty_kind(crosscoder.penalties)))
        phi = _phi(results, crosscoder.name, "model", "mean")
        ends = [max(phi[scheme][0], PHI_FLOOR) for scheme in ("full", "keep_1")]
        axes.plot([crosscoder.dominant_share] * 2, ends, color=colour, linewidth=0.7, alpha=0.6)
        for scheme in ("full", "keep_1"):
            at = [crosscoder.dominant_share], [phi[scheme]]
            _curve(axes, *at, colour, marker, hollow=scheme == "full")
            share = f"share {number(crosscoder.dominant_share)}"
            _mark_curve(axes, *at, [f"{crosscoder.name}, {share}, {SCHEME_WORDS[scheme]}"])
    for place, label in enumerate(kinds):
        colour, marker = style.look(place)
        axes.plot([], [], linestyle="none", label=label, color=colour, marker=marker)
    for face, label in ((style.GREY, "filled: keep 1"), ("white", "hollow: all features")):
        axes.plot([], [], "o", color=style.GREY, markerfacecolor=face, label=label)
    axes.set(xlabel="dominant share", ylabel=PHI["mean"], xlim=(0, 1))
    for patch in _phi_axes(axes):
        patch.set_label(WORSE)
    figure.legend(loc="outside right upper", title="penalties", alignment="left")
    return figure


def ablations(results: Results) -> Plate:
    """Block-averaged Phi_mean of every scheme, for the headline crosscoder and the unpenalised one."""
    variants: list[ResidMid] = ["model"]
    if any(results.mean_ablation(name, "crosscoder", "mean") for name in results.compared):
        variants.append("crosscoder")
    figure = Plate(figsize=(style.PAGE, 4.4))
    panels = np.atleast_1d(figure.subplots(1, len(variants), sharey=True))
    cases = [_phi(results, name, variant, "mean") for name in results.compared for variant in variants]
    shown: list[Scheme] = [scheme for scheme in SCHEMES if any(scheme in phi for phi in cases)]
    height = 0.8 / len(results.compared)
    for axes, letter, variant in zip(panels, "ab"[: len(variants)], variants, strict=True):
        for offset, (name, colour) in enumerate(_compared_colours(results).items()):
            phi = _phi(results, name, variant, "mean")
            for place, scheme in enumerate(shown):
                if scheme in phi:
                    at = place + (offset + 0.5) * height - 0.4
                    _bar(axes, at, height, phi[scheme], colour)
                    words = f"{name}, {SCHEME_WORDS[scheme]}: {_interval_words(phi[scheme])}"
                    figure.mark(axes, max(phi[scheme][0], PHI_FLOOR), at, words)
            axes.barh(0, 0, color=colour, label=plain(name))
        axes.set_yticks(range(len(shown)), [SCHEME_WORDS[scheme] for scheme in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlim=(PHI_FLOOR - 0.02, 1.05), xlabel=PHI["mean"])
        axes.set_title(f"{letter}  resid_mid from the {variant}")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(visible=False, axis="y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _bar(axes: Axes, place: float, height: float, interval: Interval, colour: str) -> None:
    value, low, high = interval
    axes.barh(place, max(value, PHI_FLOOR), height=height * 0.92, color=colour)
    if value < PHI_FLOOR:
        axes.text(0.03, place, f"◂ {number(value)}", va="center", fontsize=6)
    else:
        axes.plot([max(low, PHI_FLOOR), high], [place, place], color="black", linewidth=0.9)


def few_hot(results: Results) -> Plate:
    """Share and Phi_mean held by the m largest contributions per neuron, averaged over blocks."""
    figure = Plate(figsize=(style.PAGE, 2.9))
    share, fidelity = figure.subplots(1, 2)
    colours = _compared_colours(results)
    # The two that are compared come last, so that they lie on top.
    names = [crosscoder.name for crosscoder in results.metrics.crosscoders]
    for name in sorted(names, key=colours.__contains__):
        if (curve := results.mean_few_hot(name)) is None:
            continue
        points = sorted(curve.points, key=lambda point: point.m)
        counts = [float(point.m) for point in points]
        colour = colours.get(name, "#B8B8B8")
        shares, fidelities = [point.share for point in points], [point.fidelity for point in points]
        for axes, intervals in ((share, shares), (fidelity, fidelities)):
            _curve(axes, counts, intervals, colour, "o", hollow=False)
            _mark_curve(axes, counts, intervals, [f"{name}, m = {point.m}" for point in points])
    for axes in (share, fidelity):
        ticks = sorted({point.m for curve in results.data.few_hot for point in curve.points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("features kept per neuron, m")
    share.set(title="a  Share of the m largest", ylabel="share", ylim=(0, 1.02))
    fidelity.set(title="b  Fidelity with only the m largest", ylabel=PHI["mean"])
    shaded = _phi_axes(fidelity)
    for name, colour in colours.items():
        share.plot([], [], color=colour, marker="o", label=plain(name))
    if len(names) > len(colours):
        share.plot([], [], color="#B8B8B8", marker="o", label="the others")
    handles, labels = share.get_legend_handles_labels()
    figure.legend([*handles, *shaded], [*labels, WORSE], loc="outside upper center", ncols=4)
    return figure


def interaction_matrix(results: Results, matrix: InteractionMatrix) -> Plate:
    """The strongest features' pairs as a heat map; a site's matrices, normalised alike, share a scale."""
    n = len(matrix.latents)
    key = (matrix.site, matrix.normaliser)
    alike = [other for other in results.data.interaction_matrices if (other.site, other.normaliser) == key]
    highest = max(value for other in alike for row in other.values for value in row)
    figure = Plate(figsize=(style.PAGE, style.PAGE * 0.86))
    axes = figure.subplots()
    # The square root keeps weak pairs visible beside the few strong ones.
    image = axes.imshow(matrix.values, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=highest or 1.0))
    pairs = zip(matrix.latents, matrix.labels, strict=True)
    labels = [plain(f"{latent} {visible(label)}", longest=20) for latent, label in pairs]
    size = 6 if n <= 40 else 4.5
    axes.set_xticks(range(n), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(n), labels, fontsize=size)
    axes.grid(visible=False)
    words = [
        f"{latent} {visible(label)[:40]}" for latent, label in zip(matrix.latents, matrix.labels, strict=True)
    ]
    for i, row in enumerate(matrix.values):
        for j, value in enumerate(row):
            figure.mark(axes, j, i, f"{words[i]} with {words[j]}: {significant(value)}")
    one, other = SIDES[matrix.site]
    axes.set(xlabel=f"feature j, {other}", ylabel=f"feature i, {one}")
    figure.colorbar(image, ax=axes, label=f"I(i, j){NORMALISERS[matrix.normaliser]}", shrink=0.6, pad=0.02)
    where = "summed over blocks" if matrix.block == "sum" else f"block {matrix.block}"
    axes.set_title(f"{plain(matrix.crosscoder)}, {SITE_WORDS[matrix.site]}, {where}")
    return figure


def tightness(results: Results) -> Plate:
    """Bound over truth by block: median, quartiles (box) and 5 to 95 % (line), on a log scale."""
    shown = [row for row in results.data.tightness if row.crosscoder in results.compared]
    blocks = sorted({row.block for row in shown})
    figure = Plate(figsize=(style.PAGE * 0.75, 2.9))
    axes = figure.subplots()
    width = 0.7 / len(results.compared)
    for offset, (name, colour) in enumerate(_compared_colours(results).items()):
        for row in (row for row in shown if row.crosscoder == name):
            place = blocks.index(row.block) + (offset + 0.5) * width - 0.35
            axes.plot([place, place], [row.q05, row.q95], color=colour, linewidth=1)
            axes.bar(place, row.q75 - row.q25, width * 0.7, bottom=row.q25, color=colour, alpha=0.75)
            ends = [place - width * 0.35, place + width * 0.35]
            axes.plot(ends, [row.q50] * 2, color="black", linewidth=1.2)
            quartiles = f"quartiles {significant(row.q25)} and {significant(row.q75)}"
            words = f"{name}, block {row.block}: median {significant(row.q50)}, {quartiles}"
            figure.mark(axes, place, row.q50, words)
        axes.bar(0, 0, bottom=1, color=colour, alpha=0.75, label=plain(name))
    axes.axhline(1, color="black", linewidth=0.8, linestyle="--", label="1: exact")
    few = len(blocks) <= 8  # of more, the words would touch
    axes.set_xticks(range(len(blocks)), [f"block {block}" if few else str(block) for block in blocks])
    axes.set_xlabel("" if few else "block")
    axes.set(yscale="log", ylabel="bound / truth", ylim=(min(0.8, *(0.8 * row.q05 for row in shown)), None))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _phi(results: Results, name: str, resid_mid: ResidMid, baseline: Baseline) -> dict[Scheme, Interval]:
    ablation = results.mean_ablation(name, resid_mid, baseline)
    return {} if ablation is None else ablation.phi


def _compared_colours(results: Results) -> dict[str, str]:
    return dict(zip(results.compared, (style.BLUE, style.ORANGE), strict=False))


def _fill(hollow: bool) -> dict[str, Any]:
    return {"markerfacecolor": "white", "linestyle": "--"} if hollow else {"linestyle": "-"}


def _curve(
    axes: Axes, xs: list[float], intervals: list[Interval], colour: str, marker: str, *, hollow: bool
) -> None:
    """A curve with its intervals; points below the floor sit on it as arrows."""
    fill = _fill(hollow)
    if _linestyle(xs) == "none":
        fill["linestyle"] = "none"
    heights = [max(value, PHI_FLOOR) for value, _, _ in intervals]
    axes.plot(xs, heights, color=colour, marker=marker, markevery=_where(intervals, below=False), **fill)
    fill["linestyle"] = "none"
    axes.plot(xs, heights, color=colour, marker=CARETDOWN, markevery=_where(intervals, below=True), **fill)
    for x, (value, low, high) in zip(xs, intervals, strict=True):
        if value >= PHI_FLOOR:
            axes.plot([x, x], [max(low, PHI_FLOOR), high], color=colour, linewidth=0.9, zorder=1.5)


def _mark_curve(axes: Axes, xs: list[float], intervals: list[Interval], names: list[str]) -> None:
    """Says what the points of a curve are, where `_curve` draws them."""
    figure = axes.figure
    assert isinstance(figure, Plate)
    for x, interval, name in zip(xs, intervals, names, strict=True):
        figure.mark(axes, x, max(interval[0], PHI_FLOOR), f"{name}: {_interval_words(interval)}")


def _interval_words(interval: Interval) -> str:
    return f"{number(interval[0])} {bounds(interval)}"


def _where(intervals: list[Interval], *, below: bool) -> list[int]:
    return [place for place, (value, _, _) in enumerate(intervals) if (value < PHI_FLOOR) == below]


def _phi_axes(*panels: Axes) -> list[Patch]:
    """Gives panels the same fidelity axis, and shades where a scheme is worse than the MLP's mean output.

    The shading belongs to Phi_mean alone, the first panel's; returns its patch for the legend.
    """
    low = max(PHI_FLOOR, min(0.0, *(axes.dataLim.y0 for axes in panels)))
    for axes in panels:
        axes.set_ylim(low - 0.07, 1.05)
        axes.axhline(0, color="black", linewidth=0.8)
    return [panels[0].axhspan(low - 0.07, 0, color="#F3E7E2", zorder=0)]

"""report.html: one file that holds everything it shows."""

import base64
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from xtalk.files import write_text
from xtalk.reports import wording
from xtalk.reports.data import Ablation, Context, FewHotPoint, Interval, Scheme
from xtalk.reports.figures import Drawn, write_figures
from xtalk.reports.html import ShownFigure, environment
from xtalk.reports.metrics import CrosscoderMetrics
from xtalk.reports.results import Results

HEADLINE_SCHEMES: tuple[Scheme, ...] = (
    "full",
    "keep_1",
    "keep_2",
    "keep_random",
    "keep_most_active",
    "shrink",
)
LOST_SCHEMES: tuple[Scheme, ...] = ("full", "keep_1", "keep_2", "keep_4")


@dataclass(frozen=True)
class Piece:
    """A token of a context: its text, its tint from 0 to 1, and its activation in words."""

    text: str
    tint: float
    activation: str
    peak: bool


@dataclass(frozen=True)
class HeadlineRow:
    """A crosscoder's row of the headline table."""

    crosscoder: CrosscoderMetrics
    mark: str
    phi: dict[Scheme, Interval]
    phi_zero: dict[Scheme, Interval]


def write_report(results: Results, page: Path, figures: Path) -> list[Path]:
    """Writes a self-contained page, and the figures into a folder; returns the paths of the figures."""
    drawn = write_figures(results, figures)
    write_text(page, render(results, _shown(drawn)))
    return [path for figure in drawn.values() for path in (figure.png, figure.svg)]


def figures_of(results: Results) -> dict[str, ShownFigure]:
    """The figures as a page shows them, by name."""
    with TemporaryDirectory() as folder:
        return _shown(write_figures(results, Path(folder)))


def render(results: Results, figures: dict[str, ShownFigure]) -> str:
    """The page, given its figures by name."""
    templates = environment()
    cast(dict[str, Any], templates.filters)["pieces"] = _pieces
    return templates.get_template("report.html.j2").render(_page(results), figures=figures)


def _page(results: Results) -> dict[str, Any]:
    return {
        "metrics": results.metrics,
        "data": results.data,
        "summary": wording.summary(results),
        "averaged": wording.blocks(results.data.provenance.blocks_averaged),
        "rows": [_headline_row(results, crosscoder) for crosscoder in results.metrics.crosscoders],
        "schemes": HEADLINE_SCHEMES,
        "nats": _nat_rows(results),
        "blocks_words": wording.BLOCKS_WORDS,
        "lost_schemes": {scheme: wording.SCHEME_WORDS[scheme] for scheme in LOST_SCHEMES},
        "scheme_words": wording.SCHEME_WORDS,
        "sites": wording.SITE_WORDS,
        "effects": wording.EFFECT_WORDS,
        "validation": _validation_rows(results),
        "missing": wording.missing(results),
        "few_hot": _few_hot_rows(results),
        "few_hot_ms": sorted({point.m for curve in results.data.few_hot for point in curve.points}),
    }


def _headline_row(results: Results, crosscoder: CrosscoderMetrics) -> HeadlineRow:
    data = results.data
    marks = {data.unpenalised: "reference", data.headline: "headline"} if data.kind == "run" else {}
    by_mean = results.mean_ablation(crosscoder.name, "model", "mean")
    by_zero = results.mean_ablation(crosscoder.name, "model", "zero")
    assert by_mean is not None and by_zero is not None  # Results has checked it
    return HeadlineRow(crosscoder, marks.get(crosscoder.name, ""), by_mean.phi, by_zero.phi)


def _nat_rows(results: Results) -> list[tuple[str, str, Ablation]]:
    """Crosscoder, which blocks in words, and what is lost there; resid_mid is the model's."""
    rows: list[tuple[str, str, Ablation]] = []
    for crosscoder in results.metrics.crosscoders:
        for block, words in wording.BLOCKS_WORDS.items():
            row = results.ablation(crosscoder.name, block, "model", "mean")
            if row is not None and row.ablation is not None:
                rows.append((crosscoder.name, words, row))
    return rows


def _few_hot_rows(results: Results) -> list[tuple[str, dict[int, FewHotPoint]]]:
    curves = (results.mean_few_hot(crosscoder.name) for crosscoder in results.metrics.crosscoders)
    return [
        (curve.crosscoder, {point.m: point for point in curve.points})
        for curve in curves
        if curve is not None
    ]


def _validation_rows(results: Results) -> list[tuple[str, str, list[Interval | None]]]:
    """Crosscoder, measure, and its rank correlation with each effect, mean over blocks."""
    rho = {
        (row.crosscoder, row.measure, row.effect, row.weighting): row.rho
        for row in results.data.validation
        if row.block == "mean"
    }
    names = dict.fromkeys((crosscoder, measure) for crosscoder, measure, _, _ in rho)
    return [
        (
            name,
            wording.measure(measure),
            [rho.get((name, measure, *key)) for key in wording.EFFECT_WORDS],
        )
        for name, measure in names
    ]


def _pieces(context: Context) -> list[Piece]:
    strongest = max(context.activations)
    return [
        Piece(
            text=wording.legible(token.replace("\n", "↵")),
            tint=round(max(activation, 0.0) / strongest, 2) if strongest > 0 else 0.0,
            activation=wording.significant(activation),
            peak=place == context.peak,
        )
        for place, (token, activation) in enumerate(zip(context.tokens, context.activations, strict=True))
    ]


def _shown(drawn: dict[str, Drawn]) -> dict[str, ShownFigure]:
    return {name: ShownFigure(_data_uri(one.svg), one.spots) for name, one in drawn.items()}


def _data_uri(svg: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode('ascii')}"

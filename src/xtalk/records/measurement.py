"""Dictionaries measured in a model: the records that a run has too, and the files and words they make."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtalk.files import write_text
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.reports.cluster_map import ClusterRecord, MapRecord, write_cluster_map
from xtalk.reports.metrics import CrosscoderMetrics, Fidelity, Metrics
from xtalk.reports.results import Results

METRICS, DATA, REPORT, FIGURES = "metrics.json", "report_data.json", "report.html", "figures"
CLUSTERS, CLUSTER_PAGE = "clusters.json", "clusters.html"
_SHOWN = ("full", "keep_8", "keep_4", "keep_2", "keep_1", "keep_random", "keep_most_active")


@dataclass(frozen=True, eq=False)
class Measurement:
    """One dictionary or several measured in a model, on a text.

    results: `results.metrics` is what metrics.json holds, `results.data` what a report shows beside it.
    pairs: the pair interactions in the MLPs, by dictionary. places: where each is read, in words. clusters:
    what clusters.json holds, and the map's record; None where clusters were not asked for.
    """

    results: Results
    pairs: Mapping[str, PairMatrix]
    places: Mapping[str, str]
    clusters: tuple[dict[str, Any], dict[str, Any]] | None = None

    @property
    def metrics(self) -> Metrics:
        """The figures, as metrics.json has them (schema xtalk.metrics/1)."""
        return self.results.metrics

    def rows(self) -> list[dict[str, Any]]:
        """Fidelities, a row for each dictionary, block, resid_mid, baseline, error node and scheme."""
        return [
            {
                "dictionary": crosscoder.name,
                "block": row.block,
                "resid_mid": row.resid_mid,
                "baseline": row.baseline,
                "error": error,
                "scheme": scheme,
                "phi": getattr(row, scheme),
                "low": low,
                "high": high,
                "lost": row.ce[scheme] - self.metrics.model.ce,
            }
            for crosscoder in self.metrics.crosscoders
            for error, rows in (("drop", crosscoder.fidelity), ("keep", crosscoder.fidelity_error_kept))
            for row in rows
            for scheme, (low, high) in row.ci95.items()
        ]

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json, report.html and what they are made of into a folder; returns the report.

        Each file is whole or absent, metrics.json the last. Errors: XtalkError for a full disk.
        """
        from xtalk.reports.page import write_report  # loads matplotlib, which nothing else here needs

        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / DATA, self.results.data.model_dump_json(indent=1) + "\n")
        write_report(self.results, out / REPORT, out / FIGURES)
        for name, matrix in self.pairs.items():
            matrix.save(out / f"pairs-{name}.safetensors")
        if self.clusters is not None:
            clusters, shown = self.clusters
            write_text(out / CLUSTERS, json.dumps(clusters, indent=1) + "\n")
            records = ClusterRecord.model_validate(clusters), MapRecord.model_validate(shown)
            write_cluster_map(out / CLUSTER_PAGE, *records)
        write_text(out / METRICS, self.metrics.model_dump_json(indent=1) + "\n")
        return out / REPORT

    def __str__(self) -> str:
        return "\n".join(line for crosscoder in self.metrics.crosscoders for line in self._lines(crosscoder))

    def _lines(self, crosscoder: CrosscoderMetrics) -> Iterator[str]:
        yield f"{crosscoder.name}: {self.places[crosscoder.name]}"
        yield (
            f"  FVU {crosscoder.fvu:.3f}, L0 {crosscoder.l0:.1f}, {crosscoder.dead} latents dead; "
            f"dominant share {crosscoder.dominant_share:.3f}, T {crosscoder.interaction:.4g}"
        )
        kept = {row.block: row for row in _of_model(crosscoder.fidelity_error_kept)}
        for row in _of_model(crosscoder.fidelity):
            yield from self._fidelity_lines(row, kept.get(row.block))
        for one in self.metrics.validation:
            if one.crosscoder == crosscoder.name:
                for effect, rho in one.rho.items():
                    listed = ", ".join(f"{measure} {values[0]:.2f}" for measure, values in rho.items())
                    yield f"  rank correlation with {effect.replace('_', ' ')}: {listed}"
        yield from (f"  WARNING: {warning}" for warning in crosscoder.warnings)

    def _fidelity_lines(self, row: Fidelity, kept: Fidelity | None) -> Iterator[str]:
        model = self.metrics.model
        ablated = model.ce_mlp_mean_ablated[row.block] if isinstance(row.block, int) else None
        costs = "" if ablated is None else f"; ablating its MLP costs {ablated - model.ce:.4f} nat/token"
        yield f"  block {row.block}{costs}"
        columns = f"{'scheme':18}{'Phi_mean':>9}  95 % interval      nat lost"
        yield f"  {columns}" + ("" if kept is None else " | error node kept: Phi_mean, nat lost")
        for scheme in _SHOWN:
            low, high = row.ci95[scheme]
            figures = (
                f"{getattr(row, scheme):9.3f}  [{low:6.3f}, {high:6.3f}] {row.ce[scheme] - model.ce:10.4f}"
            )
            beside = ""
            if kept is not None and scheme in kept.ce:
                beside = f" | {getattr(kept, scheme):.3f}, {kept.ce[scheme] - model.ce:.4f}"
            yield f"  {scheme:18}{figures}{beside}"


def _of_model(rows: list[Fidelity]) -> list[Fidelity]:
    """By block, with resid_mid from the model, on the fixed baseline."""
    return [r for r in rows if (r.resid_mid, r.baseline) == ("model", "mean") and isinstance(r.block, int)]

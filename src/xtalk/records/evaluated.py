"""An evaluated crosscoder, its model and text, as the records that reports show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from xtalk.data import Counted, TokenSequences, token_texts
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.evaluate import Evaluation
from xtalk.evaluation.fidelity import Fidelity
from xtalk.evaluation.interaction import TIGHTNESS_QUANTILES, Interaction
from xtalk.models.language_model import LanguageModel
from xtalk.reports import data, metrics


class Evaluated(data.Strict):
    """A crosscoder's part of both files."""

    averaged: tuple[int, ...]
    metrics: metrics.CrosscoderFigures
    ablations: list[data.Ablation]
    few_hot: list[data.FewHot]
    tightness: list[data.Tightness]


def evaluated(
    name: str, penalties: Mapping[str, float], evaluation: Evaluation, warnings: Sequence[str]
) -> Evaluated:
    """The record of an evaluation of a crosscoder, with what cannot be right about it."""
    return Evaluated(
        averaged=evaluation.averaged,
        metrics=_figures(name, penalties, evaluation, warnings),
        ablations=[_ablation(name, row) for row in evaluation.fidelity],
        few_hot=[_few_hot(name, row, evaluation) for row in evaluation.interaction],
        tightness=[_tightness(name, row) for row in evaluation.interaction if row.tightness],
    )


def model_record(model: LanguageModel, baselines: ModelBaselines) -> metrics.Model:
    """The model, and its losses."""
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


def counted_record(model: LanguageModel, sequences: TokenSequences, counted: Counted) -> metrics.Counted:
    """How many tokens of the text the figures are about, and which are left out."""
    tokenizer = model.tokenizer
    assert tokenizer is not None  # the text was read with it
    return metrics.Counted(
        **asdict(counted.tally(sequences.tokens)),
        skip_positions=counted.skip_positions,
        skip_tokens=tuple(token_texts(tokenizer, sorted(counted.skip_tokens))),
    )


def headline(parts: Sequence[Evaluated]) -> str:
    """The crosscoder with the highest keep-one fidelity, mean over blocks."""

    def keep_one(part: Evaluated) -> float:
        key = ("mean", "model", "mean")
        row = next(r for r in part.ablations if (r.block, r.resid_mid, r.baseline) == key)
        return row.phi["keep_1"][0]

    return max(parts, key=keep_one).metrics.name


def quantities(resamples: int, means: str) -> list[data.Quantity]:
    """How each kind of number was obtained; means: what the MLPs' mean outputs were taken over."""
    measured: Literal["measured"] = "measured"
    rows = (
        (
            "fidelity Φ, NMSE, shares, T",
            f"on every held-out token; intervals from {resamples} resamples of documents",
        ),
        ("mean output of an MLP, baseline of Φ_mean", means),
        ("pair interactions I(i, j)", "mean over the held-out tokens"),
        (
            "Lip(φ) in the bound on the interaction",
            "supremum of the derivative, in floating point; not a certificate",
        ),
    )
    return [data.Quantity(quantity=quantity, status=measured, how=how) for quantity, how in rows]


def clusters_record(record: Mapping[str, Any]) -> metrics.Clusters:
    """The figures of clusters, from what clusters.json holds."""
    accuracy = record["accuracy"]
    return metrics.Clusters(
        **{key: record[key] for key in metrics.Clusters.model_fields if key in record and key != "accuracy"},
        accuracy=accuracy.get("any", {}),
        accuracy_matched=accuracy.get("coactivation", {}),
    )


def validation_record(record: Mapping[str, Any]) -> metrics.ValidationMetrics:
    """Rank correlations, mean over blocks, from what a validation's file holds."""
    rho: dict[str, dict[str, Any]] = {}
    for row in record["rows"]:
        if row["block"] == "mean":
            rho.setdefault(f"{row['effect']}_per_{row['weighting']}", {})[row["measure"]] = row["rho"]
    return metrics.ValidationMetrics(crosscoder=record["crosscoder"], tokens=record["tokens"], rho=rho)


def _figures(
    name: str, penalties: Mapping[str, float], evaluation: Evaluation, warnings: Sequence[str]
) -> metrics.CrosscoderFigures:
    reconstruction, mean = evaluation.reconstruction, _mean(evaluation)
    return metrics.CrosscoderFigures(
        name=name,
        penalties=dict(penalties),
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
        fidelity_error_kept=[_fidelity_row(row) for row in evaluation.error_kept if row.block != "mean"],
        warnings=tuple(warnings),
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

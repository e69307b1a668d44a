"""Any dictionary measured in its model: what a run measures of its crosscoders, without a run."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.activations import ActivationBatches, Harvest
from xtalk.activations.scaling import measure_scaling
from xtalk.api.inputs import Dictionary, Model, Texts, crosscoder_in, model_of, sequences_of
from xtalk.clustering.map import map_record
from xtalk.clustering.study import ClusterStudy
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted, TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines, mean_mlp_outputs, measure_baselines
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.evaluation.fidelity import FidelityMeter
from xtalk.evaluation.interaction import InteractionMeter
from xtalk.evaluation.plausible import implausible
from xtalk.evaluation.validation import ValidationConfig, validate_interactions
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report, silent
from xtalk.reading.batches import batches, count_documents
from xtalk.reading.explained import Explained
from xtalk.reading.pairs import measure_pairs
from xtalk.reading.sinks import find_sinks
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
from xtalk.records.measurement import Measurement
from xtalk.records.strongest import strongest_record
from xtalk.reports import data, metrics
from xtalk.reports.results import Results
from xtalk.statistics.bootstrap import Bootstrap

LISTED = 128  # partners of each latent that a matrix lists
_SCALING_TOKENS = 4096
_JUDGED = 3  # times the measured text that clusters read: their judge needs other documents
_TIMED = 64  # tokens by which the time of all is estimated
_PASSES = 1.3  # of their time: what is not in it, pairs and features
_VALIDATION = ValidationConfig(loss_pairs=25, loss_occurrences=4)  # running the model on is most of its time

logger = logging.getLogger("xtalk")


@dataclass(frozen=True, eq=False)
class _Bench:
    """What is measured, in what, on what."""

    model: LanguageModel
    dictionaries: Mapping[str, Explained]
    sequences: TokenSequences
    counted: Counted
    resamples: int
    seed: int
    progress: Report


@torch.no_grad()
def measure(
    model: Model,
    dictionary: Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary],
    texts: Texts,
    *,
    clusters: bool = False,
    validate: bool = False,
    mean_texts: Texts | None = None,
    tokens: int = 4096,
    sequence_length: int | None = None,
    skip_positions: int = 1,
    keep_sinks: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    progress: Report = silent,
) -> Measurement:
    """Measure one dictionary, or several beside each other, in a model: all that a run says of its own.

    Reconstruction (FVU, L0, dead latents), dominant share, T, few-hot shares, tightness of the bound, pair
    interactions, and fidelity in Phi_mean and nats, with 95 % intervals over documents; fidelity twice, with
    what the dictionary leaves out dropped and kept. A dictionary may be at an MLP's input (ln2) or in the
    residual stream before it (resid_mid, resid_pre, resid_post of the block before): through the norm, then,
    at the token's own scale.

    dictionary: of any format; a mapping gives names. clusters: cluster the latents of one dictionary, and
    judge the clusters. validate: judge the measures by removing pairs of features. mean_texts: what the MLPs'
    mean outputs are taken over, by default texts. tokens: of the texts, at most. skip_positions: first tokens
    of every sequence that do not count; attention sinks that are found do not count either, unless
    keep_sinks. Says beforehand, on the log, what is measured and how long it takes about.

    Errors: XtalkError for a dictionary of another width than the model's, hookpoints that the model lacks or
    that are in front of no MLP, transcoders, no text, and too few documents.

    Source: docs/measure.md; arXiv 2606.09940, sections 3 and 5.

    >>> measured = xtalk.measure(model, cc, texts, tokens=1024, resamples=100)
    >>> measured.metrics.crosscoders[0].name, 0 < measured.metrics.crosscoders[0].dominant_share <= 1
    ('dictionary', True)
    >>> measured.save(folder).name
    'report.html'
    """
    started, given = time.monotonic(), _named(dictionary)
    if clusters and len(given) > 1:
        raise XtalkError(f"clusters of {len(given)} dictionaries; expected one; give each by itself")
    language_model = model_of(model)
    named = {name: crosscoder_in(language_model, one) for name, one in given.items()}
    explained = {name: Explained(language_model, one) for name, one in named.items()}
    blocks = sorted({block for one in explained.values() for block in one.blocks})
    read = sequences_of(
        language_model, texts, tokens=tokens * (_JUDGED if clusters else 1), length=sequence_length
    )
    sequences = _first(read, tokens)
    Bootstrap(count_documents(sequences), resamples, seed)  # too few documents: say so now, not later
    counted = _counted(explained, sequences, skip_positions, keep_sinks)
    bench = _Bench(language_model, explained, sequences, counted, resamples, seed, progress)
    means = sequences
    if mean_texts is not None:
        means = sequences_of(language_model, mean_texts, tokens=tokens, length=sequence_length)
    mean_outputs = mean_mlp_outputs(language_model, means, tokens, blocks, counted)
    _say_plan(bench, mean_outputs, validate=validate, clusters=clusters)
    baselines = measure_baselines(
        language_model, sequences, mean_outputs, counted=counted, progress=partial(progress, "baselines")
    )
    parts = {name: _evaluated(bench, name, baselines) for name in named}
    pairs = {name: _pairs(bench, name) for name in named}
    strongest = [
        strongest_record(language_model, one, name, pairs[name], sequences, counted)
        for name, one in named.items()
    ]
    validated = [_validated(bench, name) for name in named] if validate else []
    found = _clusters(bench, read, pairs) if clusters else None
    own_text = mean_texts is not None
    figures = metrics.Metrics(
        schema="xtalk.metrics/1",
        seed=seed,
        device=str(language_model.device),
        wall_seconds=time.monotonic() - started,
        model=model_record(language_model, baselines),
        counted=counted_record(language_model, sequences, counted),
        crosscoders=[metrics.CrosscoderMetrics(**dict(part.metrics)) for part in parts.values()],
        clusters=None if found is None else clusters_record(found[0]),
        validation=list(map(validation_record, validated)),
    )
    first = headline(list(parts.values()))
    shown = data.ReportData(
        schema="xtalk.report/1",
        kind="measure",
        headline=first,
        unpenalised=first,
        provenance=_provenance(bench, texts, baselines, parts[first].averaged, own_text),
        ablations=[row for part in parts.values() for row in part.ablations],
        few_hot=[row for part in parts.values() for row in part.few_hot],
        tightness=[row for part in parts.values() for row in part.tightness],
        interaction_matrices=[one.matrix for one in strongest],
        features=[feature for one in strongest for feature in one.features],
        validation=[
            data.Validation(crosscoder=record["crosscoder"], **row)
            for record in validated
            for row in record["rows"]
        ],
    )
    places = {name: _place_words(one) for name, one in explained.items()}
    return Measurement(Results(figures, shown), pairs, places, found)


def dictionary_names(given: Sequence[Dictionary]) -> list[str]:
    """A name for each dictionary: its folder's, with a number where several are called alike."""
    plain = ["dictionary" if isinstance(one, Crosscoder) else Path(str(one)).name for one in given]
    return [
        name if plain.count(name) == 1 else f"{name}-{plain[: place + 1].count(name)}"
        for place, name in enumerate(plain)
    ]


def _named(given: Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary]) -> dict[str, Dictionary]:
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        several = [given] if isinstance(given, Crosscoder | str | Path) else list(given)
        named = dict(zip(dictionary_names(several), several, strict=True))
    if not named:
        raise XtalkError("no dictionary to measure; expected one or more; give a folder or a hub name")
    return named


def _first(read: TokenSequences, tokens: int) -> TokenSequences:
    count = -(-tokens // read.length)
    return token_sequences(read.tokens[:count], read.documents[:count])


def _counted(
    dictionaries: Mapping[str, Explained], sequences: TokenSequences, skip_positions: int, keep_sinks: bool
) -> Counted:
    """The tokens that count: neither the positions asked for nor attention sinks."""
    if skip_positions >= sequences.length:
        raise XtalkError(
            f"skip_positions {skip_positions} leaves nothing of {sequences.length} tokens; skip fewer"
        )
    if keep_sinks:
        return Counted(skip_positions)
    points = list(dict.fromkeys(point for one in dictionaries.values() for point in one.hookpoints))
    model = next(iter(dictionaries.values())).model
    sinks = find_sinks(model, sequences, points)
    if (sentence := sinks.sentence(model)) is not None:
        logger.info("%s; keep_sinks counts them", sentence)
    return Counted(max(skip_positions, sinks.positions), frozenset(sinks.tokens))


def _say_plan(bench: _Bench, mean_outputs: Mapping[int, Tensor], *, validate: bool, clusters: bool) -> None:
    """Say what is measured, and how long that takes, by what the first sequence takes."""
    tally = bench.counted.tally(bench.sequences.tokens)
    logger.info(
        "measure: %d tokens of %d documents, of which %d count",
        tally.tokens,
        count_documents(bench.sequences),
        tally.counted,
    )
    for name, explained in bench.dictionaries.items():
        logger.info("%s: %d latents; %s", name, explained.crosscoder.config.d_sae, _place_words(explained))
    fewest, seconds = bench.counted.skip_positions + 2, 0.0
    warm, timed = (min(max(stop, fewest), bench.sequences.length) for stop in (_TIMED // 8, _TIMED))
    for stop in (warm, timed):
        first = token_sequences(bench.sequences.tokens[:1, :stop], bench.sequences.documents[:1, :stop])
        seconds = _seconds(bench, first, mean_outputs)
    whole = seconds * bench.sequences.tokens.size / timed * _PASSES
    beside = [what for what, asked in (("validation", validate), ("clusters", clusters)) if asked]
    logger.info(
        "measure: about %.0f s, as %d tokens took %.1f s%s",
        whole,
        timed,
        seconds,
        f"; {' and '.join(beside)} beside that" if beside else "",
    )


def _seconds(bench: _Bench, few: TokenSequences, mean_outputs: Mapping[int, Tensor]) -> float:
    """What measuring a few sequences takes, baselines included."""
    started, documents = time.monotonic(), count_documents(few)
    baselines = measure_baselines(bench.model, few, mean_outputs, counted=bench.counted)
    for explained in bench.dictionaries.values():
        for error in ("drop", "keep"):
            one = Explained(bench.model, explained.crosscoder, error)
            for batch in batches(bench.model, few, counted_nS=bench.counted.mask(few.tokens)):
                read = one.read(batch, one.around_mlps(batch))
                FidelityMeter(one, baselines, bench.seed, few=error == "keep").add(read)
                if error == "drop":
                    InteractionMeter(one, documents).add(read)
    return time.monotonic() - started


def _place_words(explained: Explained) -> str:
    """Where a dictionary is read, in words."""
    parts: list[str] = []
    for block, place in explained.places.items():
        through = "" if place.norm is None else ", through its norm at the token's own scale"
        parts.append(f"{place.point}, read at the MLP of block {block}{through}")
    return "; ".join(parts)


def _evaluated(bench: _Bench, name: str, baselines: ModelBaselines) -> Evaluated:
    explained = bench.dictionaries[name]
    crosscoder = explained.crosscoder
    evaluation = evaluate_crosscoder(
        bench.model,
        crosscoder,
        _factors(bench, explained),
        bench.sequences,
        baselines,
        resamples=bench.resamples,
        seed=bench.seed,
        keep_error=True,
        progress=partial(bench.progress, f"evaluate {name}"),
    )
    positions = bench.sequences.length - bench.counted.skip_positions
    warnings = implausible(evaluation, crosscoder.config, positions)
    for warning in warnings:
        logger.warning("%s: %s", name, warning)
    return evaluated(name, crosscoder.provenance.penalties or {}, evaluation, warnings)


def _factors(bench: _Bench, explained: Explained) -> Float[Tensor, "P"]:
    """The scaling that squared errors are counted in: that of the training, or else measured."""
    known = explained.crosscoder.provenance.scaling_factors
    if known is not None and len(known) == len(explained.hookpoints):
        return torch.tensor(known, device=bench.model.device)
    harvest = Harvest(bench.model, bench.sequences, explained.hookpoints)
    most = int(bench.counted.mask(bench.sequences.tokens).sum())
    stream = ActivationBatches(harvest, min(512, most), bench.seed, counted=bench.counted)
    return measure_scaling(stream, _SCALING_TOKENS).factor_P


def _pairs(bench: _Bench, name: str) -> PairMatrix:
    found = measure_pairs(
        bench.model,
        bench.dictionaries[name].crosscoder,
        bench.sequences,
        counted=bench.counted,
        top=LISTED,
        progress=partial(bench.progress, f"pairs {name}"),
    )
    return found.matrices["mlp"]


def _validated(bench: _Bench, name: str) -> dict[str, Any]:
    rows = validate_interactions(
        bench.model,
        bench.dictionaries[name].crosscoder,
        bench.sequences,
        replace(_VALIDATION, resamples=bench.resamples),
        seed=bench.seed,
        counted=bench.counted,
        progress=partial(bench.progress, f"validate {name}"),
    )
    return {"crosscoder": name, "tokens": bench.sequences.tokens.size, "rows": [asdict(row) for row in rows]}


def _clusters(
    bench: _Bench, read: TokenSequences, pairs: Mapping[str, PairMatrix]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What clusters.json and the map hold, of the only dictionary."""
    [(name, explained)] = bench.dictionaries.items()
    study = ClusterStudy(
        bench.model,
        explained.crosscoder,
        {"mlp": pairs[name]},
        read,
        len(bench.sequences),
        seed=bench.seed,
        counted=bench.counted,
        progress=lambda what, done, total: bench.progress(f"cluster {name}, {what}", done, total),
    )
    about = {"schema": "xtalk.clusters/1", "crosscoder": name, "sites": ["mlp"], "seed": bench.seed}
    how = {"method": study.method, "normaliser": study.normaliser}
    shown = {"schema": "xtalk.cluster_map/1", "crosscoder": name, **map_record(study)}
    return {**about, **how, **study.record()}, shown


def _provenance(
    bench: _Bench, texts: Texts, baselines: ModelBaselines, averaged: Sequence[int], own_text: bool
) -> data.Provenance:
    known = {one.crosscoder.provenance.text_hash for one in bench.dictionaries.values()}
    trained_on = bench.sequences.text_hash in known
    words = str(texts) if isinstance(texts, str | Path) else f"{count_documents(bench.sequences)} documents"
    return data.Provenance(
        text=words,
        text_hash=bench.sequences.text_hash,
        held_out=False if trained_on else None,
        tokens=bench.sequences.tokens.size,
        documents=len(baselines.model_E),
        seeds=[bench.seed],
        blocks_averaged=list(averaged),
        model_hash=bench.model.weights_hash,
        numbers=quantities(bench.resamples, "on a text of its own" if own_text else "on the same text"),
    )

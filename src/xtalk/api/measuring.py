"""Any dictionary measured in its model: what a run measures of its crosscoders, without a run."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xtalk.api.inputs import Dictionary, Model, Texts, crosscoder_in, model_of, sequences_of
from xtalk.api.measured import Bench, Measured, clustered, measured, place_words, say_plan
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted, TextSource, TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines, mean_mlp_outputs, measure_baselines
from xtalk.progress import Report, silent
from xtalk.reading.batches import count_documents
from xtalk.reading.explained import Explained
from xtalk.reading.sinks import find_sinks
from xtalk.records.evaluated import (
    clusters_record,
    counted_record,
    headline,
    model_record,
    quantities,
    validation_record,
)
from xtalk.records.measurement import Measurement
from xtalk.reports import data, metrics
from xtalk.reports.results import Results
from xtalk.statistics.bootstrap import Bootstrap

_JUDGED = 3  # times the measured text that clusters read: their judge needs other documents

logger = logging.getLogger("xtalk")


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
    started, given = time.monotonic(), _named(dictionary, clusters)
    loaded, length = model_of(model), sequence_length
    explained = {name: Explained(loaded, crosscoder_in(loaded, one)) for name, one in given.items()}
    read = sequences_of(loaded, texts, tokens=tokens * (_JUDGED if clusters else 1), length=length)
    sequences = _first(read, tokens)
    Bootstrap(count_documents(sequences), resamples, seed)  # too few documents: say so now, not later
    counted = _counted(explained, sequences, skip_positions, keep_sinks)
    bench = Bench(loaded, explained, sequences, counted, resamples, seed, progress)
    means = (
        sequences if mean_texts is None else sequences_of(loaded, mean_texts, tokens=tokens, length=length)
    )
    mean_outputs = mean_mlp_outputs(loaded, means, tokens, bench.blocks, counted)
    say_plan(bench, mean_outputs, validate=validate, clusters=clusters)
    heard = partial(progress, "baselines")
    baselines = measure_baselines(loaded, sequences, mean_outputs, counted=counted, progress=heard)
    parts = [measured(bench, name, baselines, validate=validate) for name in explained]
    found = clustered(bench, read, parts[0].pairs) if clusters else None
    about = _provenance(bench, _words(texts, bench), mean_texts is None, parts)
    return _measurement(bench, parts, found, _metrics(bench, baselines, parts, found, started), about)


def _words(texts: Texts, bench: Bench) -> str:
    if isinstance(texts, str | Path | TextSource):
        return str(texts)
    return f"{count_documents(bench.sequences)} documents"


def _measurement(
    bench: Bench,
    parts: Sequence[Measured],
    clusters: tuple[dict[str, Any], dict[str, Any]] | None,
    record: metrics.Metrics,
    about: data.Provenance,
) -> Measurement:
    pairs = {part.evaluated.metrics.name: part.pairs for part in parts}
    places = {name: place_words(one) for name, one in bench.dictionaries.items()}
    return Measurement(Results(record, _shown(parts, about)), pairs, places, clusters)


def _metrics(
    bench: Bench,
    baselines: ModelBaselines,
    parts: Sequence[Measured],
    clusters: tuple[dict[str, Any], dict[str, Any]] | None,
    started: float,
) -> metrics.Metrics:
    """The record of metrics.json."""
    return metrics.Metrics(
        schema="xtalk.metrics/1",
        seed=bench.seed,
        device=str(bench.model.device),
        wall_seconds=time.monotonic() - started,
        model=model_record(bench.model, baselines),
        counted=counted_record(bench.model, bench.sequences, bench.counted),
        crosscoders=[metrics.CrosscoderMetrics(**dict(part.evaluated.metrics)) for part in parts],
        clusters=None if clusters is None else clusters_record(clusters[0]),
        validation=[validation_record(part.validated) for part in parts if part.validated is not None],
    )


def _shown(parts: Sequence[Measured], provenance: data.Provenance) -> data.ReportData:
    """The record of report_data.json."""
    evaluated_parts = [part.evaluated for part in parts]
    first = headline(evaluated_parts)
    return data.ReportData(
        schema="xtalk.report/1",
        kind="measure",
        headline=first,
        unpenalised=first,
        provenance=provenance,
        ablations=[row for part in evaluated_parts for row in part.ablations],
        few_hot=[row for part in evaluated_parts for row in part.few_hot],
        tightness=[row for part in evaluated_parts for row in part.tightness],
        interaction_matrices=[part.strongest.matrix for part in parts],
        features=[feature for part in parts for feature in part.strongest.features],
        validation=[
            data.Validation(crosscoder=part.validated["crosscoder"], **row)
            for part in parts
            if part.validated is not None
            for row in part.validated["rows"]
        ],
    )


def _provenance(
    bench: Bench, text: str, same_text_for_means: bool, parts: Sequence[Measured]
) -> data.Provenance:
    known = {one.crosscoder.provenance.text_hash for one in bench.dictionaries.values()}
    averaged = sorted({block for part in parts for block in part.evaluated.averaged})
    return data.Provenance(
        text=text,
        text_hash=bench.sequences.text_hash,
        held_out=False if bench.sequences.text_hash in known else None,
        tokens=bench.sequences.tokens.size,
        documents=count_documents(bench.sequences),
        seeds=[bench.seed],
        blocks_averaged=averaged,
        model_hash=bench.model.weights_hash,
        numbers=quantities(
            bench.resamples, "on the same text" if same_text_for_means else "on a text of its own"
        ),
    )


def dictionary_names(given: Sequence[Dictionary]) -> list[str]:
    """A name for each dictionary: its folder's, with a number where several are called alike."""
    plain = ["dictionary" if isinstance(one, Crosscoder) else Path(str(one)).name for one in given]
    return [
        name if plain.count(name) == 1 else f"{name}-{plain[: place + 1].count(name)}"
        for place, name in enumerate(plain)
    ]


def _named(
    given: Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary], clusters: bool
) -> dict[str, Dictionary]:
    """The dictionaries by name. Errors: XtalkError for none, and for several of which clusters are asked."""
    if isinstance(given, Mapping):
        named = dict(given)
    else:
        several = [given] if isinstance(given, Crosscoder | str | Path) else list(given)
        named = dict(zip(dictionary_names(several), several, strict=True))
    if not named:
        raise XtalkError("no dictionary to measure; expected one or more; give a folder or a hub name")
    if clusters and len(named) > 1:
        raise XtalkError(f"clusters of {len(named)} dictionaries; expected one; give each by itself")
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

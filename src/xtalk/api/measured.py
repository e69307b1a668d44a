"""What `xtalk.measure` measures of each dictionary, and how long that takes."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.activations import ActivationBatches, Harvest
from xtalk.activations.scaling import measure_scaling
from xtalk.clustering.map import map_record
from xtalk.clustering.study import ClusterStudy
from xtalk.data import Counted, TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.evaluation.baselines import ModelBaselines, measure_baselines
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.evaluation.fidelity import FidelityMeter
from xtalk.evaluation.interaction import InteractionMeter
from xtalk.evaluation.plausible import implausible
from xtalk.evaluation.validation import ValidationConfig, validate_interactions
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report
from xtalk.reading.batches import batches, count_documents
from xtalk.reading.explained import Explained
from xtalk.reading.pairs import measure_pairs
from xtalk.records.evaluated import Evaluated, evaluated
from xtalk.records.strongest import strongest_record
from xtalk.reports import data

LISTED = 128  # partners of each latent that a matrix lists
_SCALING_TOKENS = 4096
_TIMED = 64  # tokens by which the time of all is estimated
_PASSES = 1.3  # of their time: what is not in it, pairs and features
_VALIDATION = ValidationConfig(loss_pairs=25, loss_occurrences=4)  # running the model on is most of its time

logger = logging.getLogger("xtalk")


@dataclass(frozen=True, eq=False)
class Bench:
    """What is measured: dictionaries by name, in a model, on the tokens of a text that count."""

    model: LanguageModel
    dictionaries: Mapping[str, Explained]
    sequences: TokenSequences
    counted: Counted
    resamples: int
    seed: int
    progress: Report

    @property
    def blocks(self) -> list[int]:
        """Those at whose MLPs a dictionary is read."""
        return sorted({block for one in self.dictionaries.values() for block in one.blocks})


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one dictionary; validated: rows and what they are of, None if not asked for."""

    evaluated: Evaluated
    pairs: PairMatrix
    strongest: data.Strongest
    validated: dict[str, Any] | None


def measured(bench: Bench, name: str, baselines: ModelBaselines, *, validate: bool) -> Measured:
    """Measure one of the dictionaries."""
    of_it, pairs = _evaluated(bench, name, baselines), _pairs(bench, name)
    crosscoder = bench.dictionaries[name].crosscoder
    strongest = strongest_record(bench.model, crosscoder, name, pairs, bench.sequences, bench.counted)
    return Measured(of_it, pairs, strongest, _validated(bench, name) if validate else None)


def say_plan(bench: Bench, mean_outputs: Mapping[int, Tensor], *, validate: bool, clusters: bool) -> None:
    """Say what is measured, and how long that takes, by what the first sequence takes."""
    tally = bench.counted.tally(bench.sequences.tokens)
    logger.info(
        "measure: %d tokens of %d documents, of which %d count",
        tally.tokens,
        count_documents(bench.sequences),
        tally.counted,
    )
    for name, explained in bench.dictionaries.items():
        logger.info("%s: %d latents; %s", name, explained.crosscoder.config.d_sae, place_words(explained))
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


def _seconds(bench: Bench, few: TokenSequences, mean_outputs: Mapping[int, Tensor]) -> float:
    """What measuring a few sequences takes, baselines included."""
    started, documents = time.monotonic(), count_documents(few)
    baselines = measure_baselines(bench.model, few, mean_outputs, counted=bench.counted)
    for explained in bench.dictionaries.values():
        for error in ("drop", "keep"):
            one = Explained(bench.model, explained.crosscoder, error)
            for batch in batches(bench.model, few, counted_nS=bench.counted.mask(few.tokens)):
                read = one.read(batch, one.around_mlps(batch))
                fidelity = FidelityMeter(one, baselines, bench.seed, few=error == "keep")
                if error == "drop":
                    fidelity.add(read, partial(InteractionMeter(one, documents).add, read))
                else:
                    fidelity.add(read)
    return time.monotonic() - started


def place_words(explained: Explained) -> str:
    """Where a dictionary is read, in words."""
    parts: list[str] = []
    for block, place in explained.places.items():
        through = "" if place.norm is None else ", through its norm at the token's own scale"
        parts.append(f"{place.point}, read at the MLP of block {block}{through}")
    return "; ".join(parts)


def _evaluated(bench: Bench, name: str, baselines: ModelBaselines) -> Evaluated:
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


def _factors(bench: Bench, explained: Explained) -> Float[Tensor, "P"]:
    """The scaling that squared errors are counted in: that of the training, or else measured."""
    known = explained.crosscoder.provenance.scaling_factors
    if known is not None and len(known) == len(explained.hookpoints):
        return torch.tensor(known, device=bench.model.device)
    harvest = Harvest(bench.model, bench.sequences, explained.hookpoints)
    most = int(bench.counted.mask(bench.sequences.tokens).sum())
    stream = ActivationBatches(harvest, min(512, most), bench.seed, counted=bench.counted)
    return measure_scaling(stream, _SCALING_TOKENS).factor_P


def _pairs(bench: Bench, name: str) -> PairMatrix:
    found = measure_pairs(
        bench.model,
        bench.dictionaries[name].crosscoder,
        bench.sequences,
        counted=bench.counted,
        top=LISTED,
        progress=partial(bench.progress, f"pairs {name}"),
    )
    return found.matrices["mlp"]


def _validated(bench: Bench, name: str) -> dict[str, Any]:
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


def clustered(bench: Bench, read: TokenSequences, pairs: PairMatrix) -> tuple[dict[str, Any], dict[str, Any]]:
    """What clusters.json and the map hold, of the only dictionary."""
    [(name, explained)] = bench.dictionaries.items()
    study = ClusterStudy(
        bench.model,
        explained.crosscoder,
        {"mlp": pairs},
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

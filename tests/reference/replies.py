"""What a model writes, and how sure it is, one sequence and one token at a time."""

import math

import torch

from xtalk.models.language_model import LanguageModel


def predicted(model: LanguageModel, tokens: list[int]) -> list[float]:
    """The probability of every next token."""
    logits = model.logits(torch.tensor([tokens]))[0, -1].double()
    weights = [math.exp(logit - logits.max()) for logit in logits.tolist()]
    return [weight / sum(weights) for weight in weights]


def reply_to(model: LanguageModel, tokens: list[int], length: int) -> list[int]:
    """The tokens that a model writes greedily."""
    written: list[int] = []
    while len(written) < length and len(tokens) + len(written) <= model.context:
        p = predicted(model, tokens + written)
        written.append(p.index(max(p)))
    return written


def expected_tokens(model: LanguageModel, tokens: list[int], reply: list[int], stop: float) -> float:
    """How many tokens of a reply a sample has, expected; the first that is less probable ends the sum."""
    total, sure = 0.0, 1.0
    for k, token in enumerate(reply):
        sure *= predicted(model, tokens + reply[:k])[token]
        total += sure
        if sure < stop:
            break
    return total

"""Which tokens features raise and lower, as a report and the cluster map show them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences, token_texts
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.features import logit_effects


@dataclass(frozen=True)
class LogitTokens:
    """The tokens whose logits a feature raises most, and those that it lowers most, with by how much."""

    raised: tuple[tuple[str, float], ...] = ()
    lowered: tuple[tuple[str, float], ...] = ()


def logit_tokens(
    model: LanguageModel,
    crosscoder: Crosscoder,
    sequences: TokenSequences,
    activation_L: Float[Tensor, "L"],
    latents: Sequence[int],
    count: int,
) -> list[LogitTokens]:
    """Of each latent at its activation, `count` tokens either way.

    None if the crosscoder lacks the last block. Only tokens of the text count: a model hardly learns
    logits for others, and they would come first. Errors: XtalkError for a model without a tokenizer.
    """
    last = Hookpoint(model.n_blocks - 1, "resid_post")
    if str(last) not in crosscoder.config.hook_names or not latents:
        return [LogitTokens()] * len(latents)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise XtalkError(f"the model {model.name} comes without a tokenizer; put tokenizer.json there")
    effects_nV = logit_effects(model, crosscoder, activation_L, latents).cpu()
    seen_W = torch.from_numpy(sequences.tokens).long().unique()
    effects_nW, found = effects_nV[:, seen_W], list[LogitTokens]()
    for effects_W in effects_nW:
        order = effects_W.argsort(descending=True, stable=True).tolist()

        def named(places: list[int], effects_W: Tensor = effects_W) -> tuple[tuple[str, float], ...]:
            texts = (token_texts(tokenizer, [int(seen_W[w])], inside=True)[0] for w in places)
            return tuple(zip(texts, effects_W[places].tolist(), strict=True))

        raised = [w for w in order[:count] if effects_W[w] > 0]
        lowered = [w for w in order[::-1][:count] if effects_W[w] < 0]
        found.append(LogitTokens(named(raised), named(lowered)))
    return found

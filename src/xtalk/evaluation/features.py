"""What latents stand for: the tokens they fire on, and the contexts in which they are most active."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import PreTrainedTokenizerBase

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.evaluation.text import Explained, batches
from xtalk.models.language_model import LanguageModel


@dataclass(frozen=True)
class Context:
    """A stretch of one document with a latent's activation at every token, the strongest at `peak`."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int


@dataclass(frozen=True)
class Feature:
    """One latent on a text.

    firing_rate: the fraction of tokens on which it is active; mean_activation: over those; top_tokens: on
    which it is active most often, with how often; contexts: of its strongest activations, strongest first.
    """

    latent: int
    firing_rate: float
    mean_activation: float
    top_tokens: tuple[tuple[str, int], ...]
    contexts: tuple[Context, ...]


@torch.no_grad()
def describe_features(
    model: LanguageModel,
    crosscoder: Crosscoder,
    sequences: TokenSequences,
    latents: Sequence[int],
    *,
    top_tokens: int = 8,
    contexts: int = 5,
    window: int = 16,
) -> tuple[Feature, ...]:
    """Describe some latents by the text; contexts of `window` tokens around the peak, without overlaps.

    The crosscoder is in the model's own units. Memory: 4 bytes per token for each of these latents.
    Errors: XtalkError for a latent that the crosscoder lacks, or a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise XtalkError(
            f"the model {model.name} comes without a tokenizer; features are described in tokens"
        )
    if strangers := [i for i in latents if not 0 <= i < crosscoder.config.d_sae]:
        raise XtalkError(f"no latent {strangers[0]}; the crosscoder has 0 to {crosscoder.config.d_sae - 1}")
    explained = Explained(model, crosscoder)
    chosen = torch.tensor(list(latents), device=crosscoder.W_dec.device)
    parts = [explained.read(batch).codes.dense()[:, chosen].cpu() for batch in batches(model, sequences)]
    activation_BF = torch.cat(parts).numpy()
    return tuple(
        _describe(latent, activation_BF[:, f], sequences, model.tokenizer, top_tokens, contexts, window)
        for f, latent in enumerate(latents)
    )


def _describe(
    latent: int,
    activation_B: Float[np.ndarray, "B"],
    sequences: TokenSequences,
    tokenizer: PreTrainedTokenizerBase,
    top_tokens: int,
    contexts: int,
    window: int,
) -> Feature:
    active = np.flatnonzero(activation_B > 0)
    counts = Counter(sequences.tokens.ravel()[active].tolist())
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top_tokens]
    spans = _spans(activation_B, sequences, contexts, window)
    return Feature(
        latent=latent,
        firing_rate=len(active) / len(activation_B),
        mean_activation=float(activation_B[active].mean()) if len(active) else 0.0,
        top_tokens=tuple((_text(tokenizer, token), count) for token, count in common),
        contexts=tuple(_context(activation_B, sequences, tokenizer, *span) for span in spans),
    )


def _spans(
    activation_B: Float[np.ndarray, "B"], sequences: TokenSequences, contexts: int, window: int
) -> list[tuple[int, int, int]]:
    """(peak, start, stop) around the strongest activations, in one sequence and document, not overlapping."""
    S = sequences.length
    documents_B = sequences.documents.ravel()
    taken_B = np.zeros(len(activation_B), dtype=bool)
    spans: list[tuple[int, int, int]] = []
    for peak in np.argsort(-activation_B, kind="stable").tolist():
        if len(spans) == contexts or activation_B[peak] <= 0:
            break
        low, high = peak // S * S, (peak // S + 1) * S
        start = max(low, peak - window // 2)
        stop = min(high, start + window)
        start, stop = _within_document(documents_B, peak, start, stop)
        if not taken_B[start:stop].any():
            taken_B[start:stop] = True
            spans.append((peak, start, stop))
    return spans


def _within_document(documents_B: Int[np.ndarray, "B"], peak: int, start: int, stop: int) -> tuple[int, int]:
    same = np.flatnonzero(documents_B[start:stop] == documents_B[peak])  # documents are contiguous
    return start + int(same[0]), start + int(same[-1]) + 1


def _context(
    activation_B: Float[np.ndarray, "B"],
    sequences: TokenSequences,
    tokenizer: PreTrainedTokenizerBase,
    peak: int,
    start: int,
    stop: int,
) -> Context:
    tokens = sequences.tokens.ravel()[start:stop].tolist()
    return Context(
        tokens=tuple(_text(tokenizer, token) for token in tokens),
        activations=tuple(activation_B[start:stop].tolist()),
        peak=peak - start,
    )


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.decode([token]))

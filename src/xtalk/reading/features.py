"""What latents stand for: the tokens they fire on, and the contexts in which they are most active."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted, TokenSequences, token_texts
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Context:
    """A stretch of one document with a latent's activation at every token, the strongest at `peak`."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int


@dataclass(frozen=True)
class Feature:
    """One latent on a text.

    firing_rate: the fraction of the tokens that count on which it is active; mean_activation: over those;
    top_tokens: on which it is active most often, with how often; contexts: of its strongest activations,
    strongest first.
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
    counted: Counted = ALL,
) -> tuple[Feature, ...]:
    """Describe some latents by the text; contexts of `window` tokens around the peak, without overlaps.

    The crosscoder is in the model's own units. Memory: 12 bytes per token and active latent.
    Errors: XtalkError for a latent that the crosscoder lacks, or a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise XtalkError(
            f"the model {model.name} comes without a tokenizer; features are described in tokens"
        )
    if strangers := [i for i in latents if not 0 <= i < crosscoder.config.d_sae]:
        raise XtalkError(f"no latent {strangers[0]}; the crosscoder has 0 to {crosscoder.config.d_sae - 1}")
    codes_BL = sparse_codes(model, crosscoder, sequences, counted=counted)
    return describe_codes(
        codes_BL,
        sequences,
        model.tokenizer,
        latents,
        top_tokens=top_tokens,
        contexts=contexts,
        window=window,
        counted=counted,
    )


@torch.no_grad()
def sparse_codes(
    model: LanguageModel,
    crosscoder: Crosscoder,
    sequences: TokenSequences,
    progress: Progress | None = None,
    counted: Counted = ALL,
) -> csr_array:
    """The codes of every token of a text, in order: (tokens, latents), sparse, without stored zeros.

    Nothing is active at tokens that do not count. progress(done, total) is called after every micro-batch, in
    sequences.
    """
    explained, done = Explained(model, crosscoder), 0
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for batch in batches(model, sequences, counted_nS=counted.mask(sequences.tokens)):
        codes = explained.codes(batch)
        row_n, slot_n = codes.values.nonzero(as_tuple=True)
        rows.append(batch.places_B[row_n.cpu().numpy()] + done * sequences.length)
        columns.append(codes.latents[row_n, slot_n].cpu().numpy())
        values.append(codes.values[row_n, slot_n].float().cpu().numpy())
        done += len(batch.tokens_mS)
        if progress is not None:
            progress(done, len(sequences))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(entries, shape=(sequences.tokens.size, crosscoder.config.d_sae))


def describe_codes(
    codes_BL: csr_array,
    sequences: TokenSequences,
    tokenizer: PreTrainedTokenizerBase,
    latents: Sequence[int],
    *,
    top_tokens: int = 8,
    contexts: int = 5,
    window: int = 16,
    counted: Counted = ALL,
) -> tuple[Feature, ...]:
    """Describe some latents by the codes of a text, as `describe_features` does."""
    by_latent, tokens = csc_array(codes_BL), int(counted.mask(sequences.tokens).sum())
    return tuple(
        _describe(
            latent,
            by_latent[:, [latent]].toarray().ravel(),
            sequences,
            tokenizer,
            top_tokens,
            contexts,
            window,
            tokens,
        )
        for latent in latents
    )


@torch.no_grad()
def logit_effects(
    model: LanguageModel, crosscoder: Crosscoder, activation_L: Float[Tensor, "L"], latents: Sequence[int]
) -> Float[Tensor, "n V"]:
    """What each latent adds to the logits through the last residual stream, less the mean over tokens.

    The last block's output is set to what the crosscoder decodes with no latent active, then with the one
    latent at its `activation_L`; both go through the model's own final norm and head. Errors: XtalkError for
    a crosscoder without that hookpoint.
    """
    last = Hookpoint(model.n_blocks - 1, "resid_post")
    p = crosscoder.hook_index(str(last))
    chosen = torch.tensor(list(latents), device=crosscoder.W_dec.device)
    base_D = crosscoder.b_dec[p]
    with_latent_nD = base_D + activation_L.to(base_D)[chosen, None] * crosscoder.W_dec[chosen, p]
    inputs_nD = torch.cat([base_D[None], with_latent_nD])
    tokens_n1 = torch.zeros(len(inputs_nD), 1, dtype=torch.long)
    logits_nV = model.continue_from(last.block, inputs_nD[:, None], tokens_n1)[:, 0].float()
    effects_nV = logits_nV[1:] - logits_nV[:1]
    return effects_nV - effects_nV.mean(1, keepdim=True)


def _describe(
    latent: int,
    activation_B: Float[np.ndarray, "B"],
    sequences: TokenSequences,
    tokenizer: PreTrainedTokenizerBase,
    top_tokens: int,
    contexts: int,
    window: int,
    tokens: int,
) -> Feature:
    active = np.flatnonzero(activation_B > 0)
    counts = Counter(sequences.tokens.ravel()[active].tolist())
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top_tokens]
    spans = _spans(activation_B, sequences, contexts, window)
    return Feature(
        latent=latent,
        firing_rate=len(active) / tokens,
        mean_activation=float(activation_B[active].mean()) if len(active) else 0.0,
        top_tokens=tuple((token_texts(tokenizer, [token], inside=True)[0], count) for token, count in common),
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
    active = np.flatnonzero(activation_B > 0)
    for peak in active[np.argsort(-activation_B[active], kind="stable")].tolist():
        if len(spans) == contexts:
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
    tokens_B, documents_B = sequences.tokens.ravel(), sequences.documents.ravel()
    inside = start > 0 and bool(documents_B[start - 1] == documents_B[start])
    return Context(
        tokens=tuple(token_texts(tokenizer, tokens_B[start:stop].tolist(), inside=inside)),
        activations=tuple(activation_B[start:stop].tolist()),
        peak=peak - start,
    )

"""A text in micro-batches, and sums over its documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel

_CURE = "check the model's weights, or run it in float32"


@dataclass(frozen=True)
class Batch:
    """Some sequences of the text: tokens, the number of each token's document, from 0 up, and which count."""

    tokens_mS: Int[Tensor, "m S"]
    documents_mS: Int[np.ndarray, "m S"]
    counted_mS: Bool[np.ndarray, "m S"]

    @cached_property
    def whole(self) -> bool:
        """Whether all tokens count."""
        return bool(self.counted_mS.all())

    @cached_property
    def places_B(self) -> Int[np.ndarray, "B"]:
        """The place of every token that counts in the flattened batch."""
        return np.flatnonzero(self.counted_mS)

    def counted(self, values_mS: Shaped[Tensor, "m S *d"]) -> Shaped[Tensor, "B *d"]:
        """The values of the tokens that count, in order."""
        if self.whole:
            return values_mS.flatten(0, 1)
        return values_mS[torch.from_numpy(self.counted_mS).to(values_mS.device)]

    def spread(
        self, values_B: Shaped[Tensor, "B *d"], others_mS: Shaped[Tensor, "m S *d"] | None = None
    ) -> Shaped[Tensor, "m S *d"]:
        """Values of the tokens that count at their places; of the others those given, or else 0."""
        if self.whole:
            return values_B.view(*self.counted_mS.shape, *values_B.shape[1:])
        if others_mS is None:
            others_mS = values_B.new_zeros(*self.counted_mS.shape, *values_B.shape[1:])
        spread_mS = others_mS.to(values_B, copy=True)
        spread_mS[torch.from_numpy(self.counted_mS).to(values_B.device)] = values_B
        return spread_mS

    def predicted(self, values_mT: Float[Tensor, "m T"]) -> tuple[Float[Tensor, "*T"], Int[np.ndarray, "*T"]]:
        """Values of predictions, of every token but a sequence's first, that count; and their documents.

        A prediction counts where the token that it is read from does.
        """
        documents_mT = self.documents_mS[:, 1:]
        if self.whole:
            return values_mT, documents_mT
        read_mT = self.counted_mS[:, :-1]
        return values_mT[torch.from_numpy(read_mT).to(values_mT.device)], documents_mT[read_mT]


def batches(
    model: LanguageModel,
    text: TokenSequences | Int[np.ndarray, "n S"],
    micro_batch: int | None = None,
    counted_nS: Bool[np.ndarray, "n S"] | None = None,
) -> Iterator[Batch]:
    """The text in order, `micro_batch` sequences at a time; by default as many as run well.

    Of bare token ids each sequence is a document. counted_nS: the tokens that count; by default all. Errors:
    XtalkError where none counts.
    """
    if isinstance(text, TokenSequences):
        tokens_nS, numbers = text.tokens, np.unique(text.documents, return_inverse=True)[1]
    else:
        tokens_nS, numbers = text, np.arange(len(text)).repeat(text.shape[1])
    documents_nS = numbers.reshape(tokens_nS.shape)
    counted_nS = np.ones(tokens_nS.shape, dtype=bool) if counted_nS is None else counted_nS
    if not counted_nS.any():
        raise XtalkError(
            f"none of the text's {tokens_nS.size} tokens counts; expected some; skip fewer positions or "
            "tokens, or give more text"
        )
    step = micro_batch or model.sequences_at_once(tokens_nS.shape[1])
    for first in range(0, len(tokens_nS), step):
        rows = slice(first, first + step)
        tokens_mS = torch.from_numpy(tokens_nS[rows]).to(model.device, torch.int64)
        yield Batch(tokens_mS, documents_nS[rows], counted_nS[rows])


def count_documents(sequences: TokenSequences) -> int:
    """The number of documents in the text."""
    return len(np.unique(sequences.documents))


def next_token_loss(
    logits_mSV: Float[Tensor, "m S V"], tokens_mS: Int[Tensor, "m S"]
) -> Float[Tensor, "m T"]:
    """Cross-entropy of every token but a sequence's first, given those before it; nat, float32.

    Errors: XtalkError where it is not finite.
    """
    targets_mS = tokens_mS.roll(-1, dims=1)  # the last column, which has no target, is cut off below
    loss_B = F.cross_entropy(logits_mSV.float().flatten(0, 1), targets_mS.flatten(), reduction="none")
    loss_mT = loss_B.view(tokens_mS.shape)[:, :-1]
    if wrong := int((~loss_mT.isfinite()).sum()):
        raise XtalkError(
            f"the model's loss is NaN or infinite at {wrong} of {loss_mT.numel()} predictions; expected "
            f"finite numbers; {_CURE}"
        )
    return loss_mT


def finite(logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
    """The logits, to be compared or sampled from. Errors: XtalkError where they are not finite."""
    if not logits.isfinite().all():
        raise XtalkError(
            f"the model's logits are NaN or infinite on the text; expected finite numbers; {_CURE}"
        )
    return logits


class DocumentSums:
    """Named sums over the tokens of each document, in float64: what the bootstrap resamples."""

    def __init__(self, documents: int) -> None:
        self._documents = documents
        self._sums: dict[tuple[object, ...], np.ndarray] = {}

    def add(self, values: Float[Tensor, "*B"], documents: Int[np.ndarray, "*B"], *key: object) -> None:
        """Add a value per token to the sums called `key`."""
        weights = values.detach().flatten().double().cpu().numpy()
        sums_E = np.bincount(documents.ravel(), weights, minlength=self._documents)
        self._sums[key] = self._sums.get(key, 0.0) + sums_E

    def __getitem__(self, key: tuple[object, ...]) -> Float[np.ndarray, "E"]:
        return self._sums[key]

    def __contains__(self, key: tuple[object, ...]) -> bool:
        return key in self._sums

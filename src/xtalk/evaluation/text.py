"""Held-out text in micro-batches, with what a model and a crosscoder make of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.activations.harvest import check_finite
from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.evaluation.ranked import RankedContributions
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights


@dataclass(frozen=True)
class Batch:
    """Some sequences of the text: tokens, and the number of each token's document, from 0 up."""

    tokens_mS: Int[Tensor, "m S"]
    documents_mS: Int[np.ndarray, "m S"]

    @property
    def predicted_documents(self) -> Int[np.ndarray, "m T"]:
        """The document of every predicted token: all of a sequence but its first."""
        return self.documents_mS[:, 1:]


def batches(
    model: LanguageModel, sequences: TokenSequences, micro_batch: int | None = None
) -> Iterator[Batch]:
    """The text in order, `micro_batch` sequences at a time; by default as many as run well."""
    step = micro_batch or model.sequences_at_once(sequences.length)
    _, numbers = np.unique(sequences.documents, return_inverse=True)
    documents = numbers.reshape(sequences.documents.shape)
    for first in range(0, len(sequences), step):
        rows = slice(first, first + step)
        tokens_mS = torch.from_numpy(sequences.tokens[rows]).to(model.device, torch.int64)
        yield Batch(tokens_mS, documents[rows])


def count_documents(sequences: TokenSequences) -> int:
    """The number of documents in the text."""
    return len(np.unique(sequences.documents))


def next_token_loss(
    logits_mSV: Float[Tensor, "m S V"], tokens_mS: Int[Tensor, "m S"]
) -> Float[Tensor, "m T"]:
    """Cross-entropy of every token but a sequence's first, given those before it; nat, float32."""
    targets_mS = tokens_mS.roll(-1, dims=1)  # the last column, which has no target, is cut off below
    loss_B = F.cross_entropy(logits_mSV.float().flatten(0, 1), targets_mS.flatten(), reduction="none")
    return loss_B.view(tokens_mS.shape)[:, :-1]


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


class Explained:
    """A crosscoder at the hookpoints of a model: where it reads, and the MLPs whose input it decodes.

    The crosscoder is in the model's own units. Errors: XtalkError where it decodes no MLP's input.
    """

    def __init__(self, model: LanguageModel, crosscoder: Crosscoder) -> None:
        self.model = model
        self.crosscoder = crosscoder
        self.hookpoints = tuple(map(model.hookpoint, crosscoder.config.hook_names))
        self.index = {hookpoint: p for p, hookpoint in enumerate(self.hookpoints)}
        self.blocks = tuple(b for b in range(model.n_blocks) if Hookpoint(b, "ln2") in self.index)
        if not self.blocks:
            raise XtalkError(
                f"the crosscoder has no ln2 hookpoint among {', '.join(crosscoder.config.hook_names)}; "
                "interactions and fidelity need the MLPs' inputs; train it on them"
            )
        self.mlps: dict[int, MlpWeights] = {block: model.mlp_weights(block) for block in self.blocks}
        mids = [Hookpoint(block, "resid_mid") for block in self.blocks]
        self._read = (*self.hookpoints, *(point for point in mids if point not in self.index))

    def read(self, batch: Batch) -> "ExplainedBatch":
        """What the model and the crosscoder make of a batch. Errors: XtalkError for NaN or infinity."""
        captured_mSQD = self.model.capture(batch.tokens_mS, self._read)
        check_finite(captured_mSQD, list(map(str, self._read)))
        captured_BQD = captured_mSQD.flatten(0, 1).float()
        x_BPD = captured_BQD[:, : len(self.hookpoints)]
        extra = {point: captured_BQD[:, q] for q, point in enumerate(self._read)}
        return ExplainedBatch(self, batch, x_BPD, extra, self.crosscoder.encode(x_BPD))


@dataclass(frozen=True)
class ExplainedBatch:
    """Activations of a batch's B = m S tokens, flattened, their codes, and what those decode to."""

    explained: Explained
    batch: Batch
    x_BPD: Float[Tensor, "B P D"]
    captured: dict[Hookpoint, Float[Tensor, "B D"]]
    codes: Codes

    @cached_property
    def decoded_BPD(self) -> Float[Tensor, "B P D"]:
        """The reconstruction of `x_BPD`."""
        return self.explained.crosscoder.decode(self.codes)

    @cached_property
    def documents_B(self) -> Int[np.ndarray, "B"]:
        """The document of every token."""
        return self.batch.documents_mS.ravel()

    @cached_property
    def contributions(self) -> dict[int, RankedContributions]:
        """The contributions to each block's MLP whose input the crosscoder decodes."""
        crosscoder, made = self.explained.crosscoder, dict[int, RankedContributions]()
        for block, mlp in self.explained.mlps.items():
            p = self.explained.index[Hookpoint(block, "ln2")]
            made[block] = RankedContributions(crosscoder.W_dec[:, p], crosscoder.b_dec[p], self.codes, mlp)
        return made

    def by_sequence(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "m S D"]:
        """A tensor of flattened tokens as sequences again."""
        return x_BD.view(*self.batch.tokens_mS.shape, -1)

"""Activations of several models on the same text, as one source: what a crosscoder of models learns from."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations.harvest import CapturingModel, Harvest, SourceIdentity
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint


class JoinedHarvest:
    """Activations of models by name at the same tokens and hookpoints, called NAME/blocks.0.ln2.

    All hookpoints of the first model come first, then those of the second. Each model reads the tokens in its
    own way; they only share the text, and so the tokenizer. Errors: XtalkError for models of different width
    and for no model.
    """

    def __init__(
        self,
        models: Mapping[str, CapturingModel],
        sequences: TokenSequences,
        hookpoints: Sequence[Hookpoint],
    ) -> None:
        widths = {name: model.d_model for name, model in models.items()}
        if len(set(widths.values())) != 1:
            told = ", ".join(f"{name} {width}" for name, width in widths.items()) or "no model"
            raise XtalkError(f"models to join: {told}; expected one or more of the same d_model")
        self._harvests = [Harvest(model, sequences, hookpoints) for model in models.values()]
        hashes = "\n".join(f"{name} {model.weights_hash}" for name, model in models.items())
        self.identity = SourceIdentity(
            hashlib.sha256(hashes.encode()).hexdigest(),
            sequences.text_hash,
            tuple(f"{name}/{hookpoint}" for name in models for hookpoint in hookpoints),
        )
        self.sequences = sequences
        self.d_model = next(iter(widths.values()))
        self._together = min(harvest.micro_batch for harvest in self._harvests)

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Activations of the sequences `rows`, in that order, in parts; the first model's dtype and device.

        Errors: XtalkError where a model gives NaN or infinity.
        """
        for first in range(0, len(rows), self._together):
            some = rows[first : first + self._together]
            by_model = [torch.cat(list(harvest.read(some))) for harvest in self._harvests]
            yield torch.cat([captured.to(by_model[0]) for captured in by_model], dim=2)

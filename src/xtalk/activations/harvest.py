"""Activations of chosen sequences, captured from a model in micro-batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.capturing import CapturingModel
from xtalk.models.devices import sequences_at_once
from xtalk.models.hookpoints import Hookpoint


@dataclass(frozen=True)
class SourceIdentity:
    """What decides activations: the weights' hash, the token sequences' hash, the hookpoints in order."""

    model: str
    text: str
    hookpoints: tuple[str, ...]


class Harvest:
    """Activations of a model at some hookpoints, for any of the given sequences."""

    def __init__(
        self, model: CapturingModel, sequences: TokenSequences, hookpoints: Sequence[Hookpoint]
    ) -> None:
        names = tuple(map(str, hookpoints))
        self.identity = SourceIdentity(model.weights_hash, sequences.text_hash, names)
        self.sequences = sequences
        self.d_model = model.d_model
        self._model = model
        self._hookpoints = tuple(hookpoints)
        self.micro_batch = micro_batch(sequences.length, len(names), model.d_model, model.device)

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Activations of the sequences `rows`, in that order, in parts; the model's dtype and device.

        Raises XtalkError where the model gives NaN or infinity.
        """
        for first in range(0, len(rows), self.micro_batch):
            tokens_nS = self.sequences.tokens[rows[first : first + self.micro_batch]]
            tokens = torch.from_numpy(tokens_nS).to(self._model.device, torch.int64)
            captured_mSPD = self._model.capture(tokens, self._hookpoints)
            check_finite(captured_mSPD, self.identity.hookpoints)
            yield captured_mSPD


def micro_batch(length: int, hookpoints: int, d_model: int, device: torch.device) -> int:
    """Sequences per forward pass that captures activations at that many hookpoints."""
    # float32 copies of what is captured, and some 24 d_model for a block's own intermediate results
    return sequences_at_once(length, device, d_model * (2 * hookpoints + 24))


def check_finite(captured_mSPD: Float[Tensor, "m S P D"], hookpoints: Sequence[str]) -> None:
    """Raise XtalkError that names the first hookpoint with NaN or infinity."""
    if torch.isfinite(captured_mSPD.sum()):  # one fast pass: any NaN or infinity makes the sum one
        return
    for slot, name in enumerate(hookpoints):
        bad = int((~torch.isfinite(captured_mSPD[:, :, slot])).sum())
        if bad:
            raise XtalkError(
                f"{bad} NaN or infinite activations at {name}; expected finite numbers; "
                "check the model's weights, or load it in float32"
            )

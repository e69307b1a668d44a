"""A crosscoder read in a model: activations, codes, and contributions to the MLPs, batch by batch."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations.harvest import check_finite
from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights
from xtalk.reading.batches import Batch
from xtalk.reading.ranked import RankedContributions


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
        return ExplainedBatch(self, batch, x_BPD, extra, self.crosscoder.encode_sparse(x_BPD))


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

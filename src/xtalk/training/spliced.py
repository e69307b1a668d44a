"""What rebuilt MLP outputs cost the model's predictions: penalties that run the model on with them.

A squared error counts all tokens alike, and most of it costs the model nothing. These penalties put the
rebuilt output in the place of the true one, run the rest of the model, and count the Kullback-Leibler
divergence of its next-token predictions from the model's own (for whole dictionaries: Braun et al. 2024,
"Identifying functionally important features with end-to-end sparse dictionary learning").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.activations import ActivationBatch
from xtalk.data import TokenSequences
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.mlp import MlpWeights


@dataclass(frozen=True)
class Splice:
    """What is put in: the MLP's output rebuilt from `keep` contributions (None: from all).

    crosscoder_resid_mid: added to the crosscoder's resid_mid rather than the model's.
    """

    keep: int | None
    crosscoder_resid_mid: bool


SPLICES = {
    "keep_one_kl": Splice(1, False),
    "full_sum_kl": Splice(None, False),
    "keep_one_kl_resid": Splice(1, True),
    "full_sum_kl_resid": Splice(None, True),
}
"""The penalties of this file by name."""


@runtime_checkable
class SplicingModel(Protocol):
    """What splicing needs of a `LanguageModel`."""

    n_blocks: int

    def capture(
        self, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
    ) -> Float[Tensor, "B S P D"]:
        """Activations at the hookpoints, in their order."""
        ...

    def continue_from(
        self, block: int, resid_post_BSD: Float[Tensor, "B S D"], tokens_BS: Int[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        """Logits when the block's output is `resid_post_BSD`."""
        ...

    def mlp_weights(self, block: int) -> MlpWeights:
        """The weights of one block's MLP, in float32."""
        ...


@dataclass(frozen=True)
class Places:
    """Where the B tokens of a batch stand: the m sequences they are from, row and position of each."""

    tokens_mS: Int[Tensor, "m S"]
    rows_B: Int[Tensor, "B"]
    positions_B: Int[Tensor, "B"]


def places_of(batch: ActivationBatch, sequences: TokenSequences) -> Places:
    """The places of a batch's tokens. A batch of few, whole sequences makes splicing cheapest."""
    numbers_m, rows_B = batch.sequences.unique(return_inverse=True)
    tokens_mS = torch.from_numpy(sequences.tokens[numbers_m.cpu().numpy()].astype(np.int64))
    device = batch.activations.device
    return Places(tokens_mS.to(device), rows_B.to(device), batch.positions.to(device))


@dataclass(frozen=True)
class SplicedMlp:
    """One MLP of a model, to be run with rebuilt outputs.

    ablated: the divergence when its mean output stands for it everywhere, in nat: the unit of `divergences`.
    """

    model: SplicingModel
    block: int
    weights: MlpWeights
    ablated: float

    def divergences(
        self,
        places: Places,
        outputs: Mapping[str, Float[Tensor, "B D"]],
        resid_mids: Mapping[str, Float[Tensor, "B D"]],
    ) -> dict[str, Float[Tensor, ""]]:
        """Mean over tokens of KL(model || model with the output spliced in) / `ablated` * D, by name.

        Counted times D, like one more hookpoint in scaled space. resid_mids: what the output is added to,
        where that is not the model's own resid_mid; tokens of the sequences that are not in the batch stay
        as they are. One forward pass, and for each output one forward and backward of the blocks above.
        """
        read = (
            Hookpoint(self.block, "resid_mid"),
            Hookpoint(self.block, "resid_post"),
            Hookpoint(self.model.n_blocks - 1, "resid_post"),
        )
        at = (places.rows_B, places.positions_B)
        mid_mSD, post_mSD, last_mSD = self.model.capture(places.tokens_mS, read).unbind(2)
        with torch.no_grad():
            true_mSV = self._log_probabilities(self.model.n_blocks - 1, last_mSD, places)
        found: dict[str, Tensor] = {}
        for name, output_BD in outputs.items():
            mid_BD = resid_mids[name] if name in resid_mids else mid_mSD[at]
            spliced_mSD = post_mSD.index_put(at, (mid_BD + output_BD).to(post_mSD.dtype))
            spliced_mSV = self._log_probabilities(self.block, spliced_mSD, places)
            divergence_mS = F.kl_div(spliced_mSV, true_mSV, reduction="none", log_target=True).sum(-1)
            found[name] = divergence_mS.mean() * (output_BD.shape[1] / self.ablated)
        return found

    def _log_probabilities(
        self, block: int, post_mSD: Float[Tensor, "m S D"], places: Places
    ) -> Float[Tensor, "m S V"]:
        return self.model.continue_from(block, post_mSD, places.tokens_mS).float().log_softmax(-1)


def spliced_mlp(model: SplicingModel, block: int, sample: Iterable[Int[Tensor, "m S"]]) -> SplicedMlp:
    """The MLP of a block; what its ablation costs is measured on sample sequences."""
    tokens = list(sample)
    inputs = [model.capture(tokens_mS, (Hookpoint(block, "ln2"),)).flatten(0, 2) for tokens_mS in tokens]
    weights = model.mlp_weights(block).to(inputs[0].device)
    mean_D = torch.stack([weights(n_BD.float()).mean(0) for n_BD in inputs]).mean(0)
    unit = SplicedMlp(model, block, weights, float(len(mean_D)))  # so that divergences are in nat
    with torch.no_grad():
        costs = [unit.divergences(_everywhere(t), {"": mean_D.expand(t.numel(), -1)}, {})[""] for t in tokens]
    return SplicedMlp(model, block, weights, float(torch.stack(costs).mean()))


def _everywhere(tokens_mS: Int[Tensor, "m S"]) -> Places:
    rows_B, positions_B = torch.ones_like(tokens_mS).nonzero().unbind(1)
    return Places(tokens_mS, rows_B, positions_B)

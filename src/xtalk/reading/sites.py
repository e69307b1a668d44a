"""Where pairs of a crosscoder's features meet beside the MLPs: in the attention and norms that it reads."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from xtalk.codes import Codes
from xtalk.errors import XtalkError
from xtalk.interactions.attention import Attended, AttentionFeatures
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.norms import NormWeights
from xtalk.reading.explained import Explained, ExplainedBatch


def read_norms(explained: Explained) -> dict[Hookpoint, tuple[NormWeights, int]]:
    """The norms whose input the crosscoder reads, by what they put out, with that input's place in P.

    Errors: XtalkError if there is none.
    """
    norms: dict[Hookpoint, tuple[NormWeights, int]] = {}
    for point in explained.model.normed():
        norm, source = explained.model.norm_weights(point)
        if source in explained.index:
            norms[point] = norm, explained.index[source]
    if not norms:
        raise XtalkError(
            "the crosscoder has no resid_pre or resid_mid hookpoint, where norms read; train it on them"
        )
    return norms


@dataclass(frozen=True, eq=False)
class ReadAttention:
    """The attention of the blocks at whose input, and after it, the crosscoder reads.

    features, inputs: by block, the latents as its heads see them, and the place of its input in P.
    """

    features: dict[int, AttentionFeatures]
    inputs: dict[int, int]

    @staticmethod
    def of(explained: Explained) -> "ReadAttention":
        """Errors: XtalkError if there is no block with both hookpoints."""
        model, index, W_dec = explained.model, explained.index, explained.crosscoder.W_dec
        features: dict[int, AttentionFeatures] = {}
        inputs: dict[int, int] = {}
        for block in range(model.n_blocks):
            before, after = Hookpoint(block, "ln1"), Hookpoint(block, "resid_mid")
            if before in index and after in index:
                p, q = index[before], index[after]
                features[block] = AttentionFeatures.of(
                    model.attention_weights(block), W_dec[:, p], W_dec[:, q]
                )
                inputs[block] = p
        if not features:
            raise XtalkError(
                "the crosscoder has no block with hookpoints ln1 and resid_mid, which pairs in attention "
                "need; train it on them"
            )
        return ReadAttention(features, inputs)

    def sequences(self, read: ExplainedBatch, keys: int) -> Iterator[tuple[slice, Codes, Attended]]:
        """Each sequence of a batch: its tokens, their codes, and the `keys` that each attends to most."""
        S = read.batch.tokens_mS.shape[1]
        attentions = [features.attention for features in self.features.values()]
        for start in range(0, len(read.documents_B), S):
            rows = slice(start, start + S)
            inputs_bSD: list[Tensor] = [read.x_BPD[rows, p] for p in self.inputs.values()]
            yield rows, read.codes.slice(start, start + S), Attended.of(attentions, inputs_bSD, keys)

"""Where pairs of a crosscoder's features meet beside the MLPs: in the attention and norms that it reads."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

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

    features: by block, the latents as its heads see them; inputs: what those blocks' attention reads.
    """

    features: dict[int, AttentionFeatures]
    inputs: tuple[Hookpoint, ...]

    @staticmethod
    def of(explained: Explained) -> "ReadAttention":
        """Errors: XtalkError if there is no block with both hookpoints."""
        model, index, W_dec = explained.model, explained.index, explained.crosscoder.W_dec
        features: dict[int, AttentionFeatures] = {}
        inputs: list[Hookpoint] = []
        for block in range(model.n_blocks):
            before, after = Hookpoint(block, "ln1"), Hookpoint(block, "resid_mid")
            if before in index and after in index:
                p, q = index[before], index[after]
                features[block] = AttentionFeatures.of(
                    model.attention_weights(block), W_dec[:, p], W_dec[:, q]
                )
                inputs.append(before)
        if not features:
            raise XtalkError(
                "the crosscoder has no block with hookpoints ln1 and resid_mid, which pairs in attention "
                "need; train it on them"
            )
        return ReadAttention(features, tuple(inputs))

    def sequences(self, read: ExplainedBatch, keys: int) -> Iterator[tuple[int, Codes, Attended]]:
        """Each sequence of a batch, by its row: codes of its tokens, and the `keys` each attends to most.

        Queries and keys that do not count are left out of the pairs, and nothing is active there.
        """
        (m, S), codes = read.batch.tokens_mS.shape, read.codes_everywhere
        attentions = [features.attention for features in self.features.values()]
        for row in range(m):
            inputs_bSD = [read.everywhere[point][row] for point in self.inputs]
            seen = Attended.of(attentions, inputs_bSD, keys)
            if not read.batch.whole:
                counted_S = torch.from_numpy(read.batch.counted_mS[row]).to(seen.query_G.device)
                g = counted_S[seen.query_G] & counted_S[seen.key_G]
                seen = Attended(seen.query_G[g], seen.key_G[g], seen.pattern_bGH[:, g])
            yield row, codes.slice(row * S, (row + 1) * S), seen

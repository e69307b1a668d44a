"""A batch run on with the MLPs of several blocks rebuilt at once, each from the codes of the clean run."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import next_token_loss
from xtalk.reading.explained import ExplainedBatch

Together = Literal["all", "all_with_0"]
"""All MLPs whose input the crosscoder decodes, but for block 0's; and block 0's too."""


def blocks_together(blocks: tuple[int, ...]) -> dict[Together, tuple[int, ...]]:
    """Which blocks are rebuilt at once, of those that a crosscoder explains; none where there is only one.

    >>> blocks_together((0, 1, 2))
    {'all': (1, 2), 'all_with_0': (0, 1, 2)}
    """
    found: dict[Together, tuple[int, ...]] = {"all": tuple(block for block in blocks if block > 0)}
    if 0 in blocks:
        found["all_with_0"] = blocks
    return {name: some for name, some in found.items() if len(some) > 1}


class TogetherStreams:
    """Residual streams of a batch, one by scheme, in which one MLP's output after the other is replaced.

    Blocks come in order. What replaces an output was made of the clean run's activations: each is what that
    MLP would put out, and the stream carries all of them. Memory is that of one stream by scheme, whatever
    the number of blocks. Tokens that do not count keep what their MLPs add in the clean run.
    """

    def __init__(self, model: LanguageModel, batch: ExplainedBatch) -> None:
        self._model, self._batch = model, batch
        self._streams: dict[str, tuple[int, Tensor]] = {}

    def replace(self, scheme: str, block: int, added_BD: Float[Tensor, "B D"]) -> None:
        """What the residual stream gains at the tokens that count, in place of what the block's MLP adds."""
        batch, tokens, mid = self._batch, self._batch.batch.tokens_mS, Hookpoint(block, "resid_mid")
        clean_mSD = batch.everywhere[mid]
        mid_mSD = clean_mSD
        if scheme in self._streams:
            mid_mSD = self._model.capture_from(*self._streams[scheme], tokens, [mid])[:, :, 0].float()
        others_mSD = None
        if not batch.batch.whole:
            others_mSD = batch.everywhere[Hookpoint(block, "resid_post")] + (mid_mSD - clean_mSD)
        post_mSD = batch.batch.spread(batch.batch.counted(mid_mSD) + added_BD, others_mSD)
        self._streams[scheme] = block, post_mSD

    def loss(self, scheme: str) -> Float[Tensor, "m T"]:
        """The loss of every prediction where the stream of a scheme runs on to the end."""
        tokens = self._batch.batch.tokens_mS
        block, post_mSD = self._streams[scheme]
        return next_token_loss(self._model.continue_from(block, post_mSD, tokens), tokens)

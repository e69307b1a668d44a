"""Which tokens of a text count: one rule for training and for every figure."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from xtalk.errors import XtalkError


@dataclass(frozen=True)
class Counted:
    """The tokens that count: all but the first positions of every sequence, and but some tokens anywhere.

    Many models' activations at a few tokens, the attention sinks, are so large that they would rule every
    squared error, mean and baseline: a sequence's first position, in some models delimiters. What training
    leaves out no figure counts. Where an MLP's output is rebuilt or ablated, tokens that do not count keep
    the model's own. The loss of a prediction counts where the token that it is read from counts.

    skip_positions: how many first positions; skip_tokens: ids. Errors: XtalkError for a negative number.

    >>> Counted(skip_positions=1).mask(np.array([[5, 6, 7]])).tolist()
    [[False, True, True]]
    """

    skip_positions: int = 0
    skip_tokens: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.skip_positions < 0:
            raise XtalkError(f"{self.skip_positions} positions to skip; expected 0 or more")

    @cached_property
    def everything(self) -> bool:
        """Whether all tokens count."""
        return not self.skip_positions and not self.skip_tokens

    def mask(self, tokens_nS: Int[np.ndarray, "n S"]) -> Bool[np.ndarray, "n S"]:
        """Which tokens of some sequences count."""
        counted_nS = np.ones(tokens_nS.shape, dtype=bool)
        counted_nS[:, : self.skip_positions] = False
        if self.skip_tokens:
            counted_nS &= ~np.isin(tokens_nS, sorted(self.skip_tokens))
        return counted_nS

    def tally(self, tokens_nS: Int[np.ndarray, "n S"]) -> "Tally":
        """How many tokens of some sequences count, and why others do not."""
        at_start = min(self.skip_positions, tokens_nS.shape[1]) * len(tokens_nS)
        counted = int(self.mask(tokens_nS).sum())
        return Tally(tokens_nS.size, counted, at_start, tokens_nS.size - at_start - counted)


@dataclass(frozen=True)
class Tally:
    """Tokens of a text, those that count, and those left out: by position, and for what they are."""

    tokens: int
    counted: int
    first_positions: int
    skipped_tokens: int


ALL = Counted()
"""Every token counts."""

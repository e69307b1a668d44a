"""Columns: groups of tokens that a proof treats as one, and blocks of columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields


@dataclass(frozen=True)
class Partition:
    """A partition of the tokens into columns, and of the columns into blocks."""

    columns: Sequence[int]  # of each token
    blocks: Sequence[int]  # of each column

    def block(self, token: int) -> int:
        """The block of a token."""
        return self.blocks[self.columns[token]]

    @property
    def members(self) -> list[list[int]]:
        """The tokens of each column."""
        members: list[list[int]] = [[] for _ in self.blocks]
        for token, column in enumerate(self.columns):
            members[column].append(token)
        return members


def read_partition(advice: Fields, tokens: int) -> Partition:
    """Read a partition, any of which is sound; null columns make every token a column of its own."""
    identity = advice.null("columns")
    columns = range(tokens) if identity else advice.integers("columns", 0, tokens - 1, tokens)
    blocks = advice.integers("blocks", 0, max(columns), max(columns) + 1)
    advice.done()
    if len(set(columns)) < len(blocks):
        raise Rejected("a codebook has a column without tokens")
    return Partition(columns, blocks)

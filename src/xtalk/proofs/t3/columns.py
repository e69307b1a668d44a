"""Which tokens a certificate treats alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """A partition of the tokens into K columns; the tokens of a column are of one class, and of one lookup
    key.
    """

    of_token: tuple[int, ...]

    def __len__(self) -> int:
        return max(self.of_token) + 1

    @cached_property
    def members_KT(self) -> Int[Tensor, "K T"]:
        """The tokens of each column, the first repeated to fill up."""
        groups: list[list[int]] = [[] for _ in range(len(self))]
        for token, column in enumerate(self.of_token):
            groups[column].append(token)
        longest = max(map(len, groups))
        return torch.tensor([group + group[:1] * (longest - len(group)) for group in groups])


@dataclass(frozen=True)
class Dictionary:
    """The feature of each token, and the columns they make: tokens of one feature and of one class.

    A feature that stands for tokens of several classes is split, so that any crosscoder gives a sound
    partition; a good one gives no more columns than features.
    """

    feature_of_token: tuple[int, ...]
    columns: Columns

    @property
    def features(self) -> int:
        """How many features stand for a token."""
        return len(set(self.feature_of_token))


def dictionary_of(features: Sequence[int], kinds: Sequence[tuple[int, ...]]) -> Dictionary:
    """The dictionary with these features of the tokens, whose columns are the tokens of one kind."""
    number = {kind: column for column, kind in enumerate(sorted(set(kinds)))}
    return Dictionary(tuple(features), Columns(tuple(number[kind] for kind in kinds)))

"""Text with known latent factors, to see whether clusters find them.

A factor is a small computation: its words `a` and `b` have one of `values` values each, and its word `c` is
the lesser of them. A document is a sequence of triples a b c of the factors of one topic, so that
factors of a topic occur together although nothing is computed across them.
"""

import re
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"([abc])(\d+)v(\d+)")


@dataclass(frozen=True)
class PlantedText:
    """How planted text is made: topics x factors_per_topic factors, triples per document."""

    topics: int = 4
    factors_per_topic: int = 3
    values: int = 4
    triples: int = 20

    @property
    def factors(self) -> int:
        """The number of factors."""
        return self.topics * self.factors_per_topic

    def vocabulary(self) -> list[str]:
        """Every word that the text may have."""
        return [f"{slot}{g}v{i}" for g in range(self.factors) for slot in "abc" for i in range(self.values)]

    def documents(self, count: int, seed: int) -> list[str]:
        """Documents of planted text."""
        rng = np.random.default_rng(seed)
        return [self._document(rng) for _ in range(count)]

    def _document(self, rng: np.random.Generator) -> str:
        topic, words = int(rng.integers(self.topics)), list[str]()
        for _ in range(self.triples):
            g = topic * self.factors_per_topic + int(rng.integers(self.factors_per_topic))
            i, j = rng.integers(self.values, size=2).tolist()
            words += [f"a{g}v{i}", f"b{g}v{j}", f"c{g}v{min(i, j)}"]
        return " ".join(words)


def factor_of(word: str) -> int:
    """The factor that a word of planted text belongs to; -1 for any other word."""
    match = _WORD.fullmatch(word)
    return int(match.group(2)) if match else -1

"""Contributions whose largest are found once, for all the schemes and measures that ask for them."""

from functools import cached_property

from jaxtyping import Float, Int
from torch import Tensor

from xtalk.interactions.contributions import MlpContributions

RANKS = 8


class RankedContributions(MlpContributions):
    """`MlpContributions` that remember the eight largest of each token and neuron."""

    @cached_property
    def _slots_BmN(self) -> Int[Tensor, "B m N"]:
        return super().top_slots(RANKS)

    @cached_property
    def _kept(self) -> list[tuple[Float[Tensor, "B N"], ...]]:
        """On each path the sum of the 1, 2, ... largest contributions."""
        kept = [tuple(path.at(self._slots_BmN[:, 0]) for path in self.paths)]
        for slots_BN in self._slots_BmN.unbind(1)[1:]:
            kept.append(tuple(p + path.at(slots_BN) for p, path in zip(kept[-1], self.paths, strict=True)))
        return kept

    def top_slots(self, m: int) -> Int[Tensor, "B m N"]:
        """As in `MlpContributions`; one alone, which some measures are content with, costs an eighth."""
        ranked = 1 < m <= RANKS or (m == 1 and "_slots_BmN" in vars(self))
        return self._slots_BmN[:, :m] if ranked else super().top_slots(m)

    def keep(self, m: int | None) -> tuple[Float[Tensor, "B N"], ...]:
        """As in `MlpContributions`."""
        if m is None or not 1 <= m <= RANKS:
            return super().keep(m)
        return self._kept[min(m, len(self._kept)) - 1]

"""Do the units of a group (neurons of a cluster, latents of a cluster) go with a mark (dormant, rare)?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.stats import false_discovery_control

PERMUTATIONS = 2000


@dataclass(frozen=True)
class Association:
    """One group: its units, how many of them are marked, how many are expected to be.

    odds_ratio: with half added to each count, so that it is finite; above 1: more are marked than elsewhere.
    p_value: one-sided, by permutation; q_value: false discovery rate over all groups (Benjamini-Hochberg).
    """

    group: int
    units: int
    marked: int
    expected: float
    odds_ratio: float
    p_value: float
    q_value: float


def associations(
    groups_U: Int[np.ndarray, "U"],
    marked_U: Bool[np.ndarray, "U"],
    strata_U: Int[np.ndarray, "U"],
    seed: int,
) -> list[Association]:
    """The association of every group with the mark; groups_U: each unit's group, below 0 for none.

    Marks are permuted within strata (such as the blocks of neurons), so that a group and a mark that both
    prefer a block are not associated for that.
    """
    names = np.unique(groups_U[groups_U >= 0])
    in_group_GU = groups_U[None] == names[:, None]
    found_G = in_group_GU @ marked_U.astype(np.int64)
    rng = np.random.default_rng(seed)
    exceeded_G, sums_G = np.zeros(len(names)), np.zeros(len(names))
    for _ in range(PERMUTATIONS):
        drawn_G = in_group_GU @ _permuted(marked_U, strata_U, rng).astype(np.int64)
        exceeded_G += drawn_G >= found_G
        sums_G += drawn_G
    p_G = (1 + exceeded_G) / (1 + PERMUTATIONS)
    q_G = false_discovery_control(p_G)
    sizes_G = in_group_GU.sum(1)
    return [
        Association(
            group=int(names[g]),
            units=int(sizes_G[g]),
            marked=int(found_G[g]),
            expected=float(sums_G[g] / PERMUTATIONS),
            odds_ratio=_odds_ratio(int(found_G[g]), int(sizes_G[g]), int(marked_U.sum()), len(marked_U)),
            p_value=float(p_G[g]),
            q_value=float(q_G[g]),
        )
        for g in range(len(names))
    ]


def _permuted(marked_U: np.ndarray, strata_U: np.ndarray, rng: np.random.Generator) -> Bool[np.ndarray, "U"]:
    """The marks shuffled within each stratum."""
    by_stratum = np.argsort(strata_U, kind="stable")
    shuffled = np.lexsort((rng.random(len(marked_U)), strata_U))
    permuted = np.empty_like(marked_U)
    permuted[by_stratum] = marked_U[shuffled]
    return permuted


def _odds_ratio(found: int, size: int, marked: int, units: int) -> float:
    a, b, c = found + 0.5, size - found + 0.5, marked - found + 0.5
    d = units - size - (marked - found) + 0.5
    return a * d / (b * c)

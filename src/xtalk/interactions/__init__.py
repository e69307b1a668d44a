"""Interactions of latents at MLPs: contributions, measures, the pair matrix, penalties."""

from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import dominant_share, few_hot_shares, interaction, sound_bound
from xtalk.interactions.pair_matrix import Normaliser, PairMatrix, combine
from xtalk.interactions.pairs import PairGroups, PairInteractions
from xtalk.interactions.penalties import PENALTIES, MlpTarget, Penalty, penalty
from xtalk.interactions.true_interaction import dominant_residual, mixed_difference, tightness

__all__ = [
    "PENALTIES",
    "MlpContributions",
    "MlpTarget",
    "Normaliser",
    "PairGroups",
    "PairInteractions",
    "PairMatrix",
    "Penalty",
    "combine",
    "dominant_residual",
    "dominant_share",
    "few_hot_shares",
    "interaction",
    "mixed_difference",
    "penalty",
    "sound_bound",
    "tightness",
]

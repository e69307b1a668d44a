"""Interactions of latents at MLPs: contributions, measures, the pair matrix, penalties."""

from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import dominant_share, few_hot_shares, interaction, sound_bound
from xtalk.interactions.pairs import Normaliser, PairInteractions, sum_over_blocks
from xtalk.interactions.penalties import PENALTIES, MlpTarget, Penalty, penalty
from xtalk.interactions.true_interaction import dominant_residual, mixed_difference, tightness

__all__ = [
    "PENALTIES",
    "MlpContributions",
    "MlpTarget",
    "Normaliser",
    "PairInteractions",
    "Penalty",
    "dominant_residual",
    "dominant_share",
    "few_hot_shares",
    "interaction",
    "mixed_difference",
    "penalty",
    "sound_bound",
    "sum_over_blocks",
    "tightness",
]

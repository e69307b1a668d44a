"""Crosscoders on held-out text: reconstruction, interaction, fidelity."""

from xtalk.evaluation.baselines import ModelBaselines, mean_mlp_outputs, measure_baselines
from xtalk.evaluation.evaluate import Evaluation, evaluate_crosscoder
from xtalk.evaluation.fidelity import Fidelity
from xtalk.evaluation.interaction import Interaction
from xtalk.evaluation.reconstruction import Reconstruction
from xtalk.evaluation.schemes import SCHEMES

__all__ = [
    "SCHEMES",
    "Evaluation",
    "Fidelity",
    "Interaction",
    "ModelBaselines",
    "Reconstruction",
    "evaluate_crosscoder",
    "mean_mlp_outputs",
    "measure_baselines",
]

"""Crosscoders on held-out text: reconstruction, interaction, fidelity, and what their latents stand for."""

from xtalk.evaluation.baselines import ModelBaselines, mean_mlp_outputs, measure_baselines
from xtalk.evaluation.bootstrap import Bootstrap, Interval
from xtalk.evaluation.evaluate import Evaluation, evaluate_crosscoder
from xtalk.evaluation.features import Feature, describe_features
from xtalk.evaluation.fidelity import Fidelity
from xtalk.evaluation.interaction import Interaction
from xtalk.evaluation.reconstruction import Reconstruction
from xtalk.evaluation.schemes import SCHEMES

__all__ = [
    "SCHEMES",
    "Bootstrap",
    "Evaluation",
    "Feature",
    "Fidelity",
    "Interaction",
    "Interval",
    "ModelBaselines",
    "Reconstruction",
    "describe_features",
    "evaluate_crosscoder",
    "mean_mlp_outputs",
    "measure_baselines",
]

"""Streams of activations: harvested from a model or read from a store, and their scaling."""

from xtalk.activations.harvest import Harvest, SourceIdentity
from xtalk.activations.joined import JoinedHarvest
from xtalk.activations.scaling import Scaling, measure_scaling
from xtalk.activations.store import ActivationStore, estimate_bytes
from xtalk.activations.stream import ActivationBatch, ActivationBatches, ActivationSource, ActivationStream

__all__ = [
    "ActivationBatch",
    "ActivationBatches",
    "ActivationSource",
    "ActivationStore",
    "ActivationStream",
    "Harvest",
    "JoinedHarvest",
    "Scaling",
    "SourceIdentity",
    "estimate_bytes",
    "measure_scaling",
]

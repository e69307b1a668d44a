"""xtalk measures, penalises and certifies the crosstalk between crosscoder features."""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from xtalk.optional import extras_named

if TYPE_CHECKING:
    from xtalk.api.clusters import cluster
    from xtalk.api.fidelity import fidelity
    from xtalk.api.measuring import measure
    from xtalk.api.pairs import pair_interactions
    from xtalk.api.proofs import check, prove
    from xtalk.api.training import train
    from xtalk.api.transcoders import transcoder_fidelity
    from xtalk.api.validation import validate
    from xtalk.codes import Codes
    from xtalk.crosscoder.crosscoder import Crosscoder
    from xtalk.crosscoder.stacking import stack
    from xtalk.data.documents import TextSource
    from xtalk.errors import XtalkError
    from xtalk.interactions.contributions import MlpContributions
    from xtalk.interactions.measures import interaction
    from xtalk.models.activation_functions import activation_function
    from xtalk.models.language_model import load_model
    from xtalk.models.mlp import MlpWeights
    from xtalk.runs.comparing import compare
    from xtalk.runs.config import RunConfig
    from xtalk.runs.folder import RunFolder
    from xtalk.runs.presets import preset
    from xtalk.runs.run import Run

__all__ = [
    "Codes",
    "Crosscoder",
    "MlpContributions",
    "MlpWeights",
    "Run",
    "RunConfig",
    "RunFolder",
    "TextSource",
    "XtalkError",
    "activation_function",
    "check",
    "cluster",
    "compare",
    "fidelity",
    "interaction",
    "load_model",
    "measure",
    "pair_interactions",
    "preset",
    "prove",
    "stack",
    "train",
    "transcoder_fidelity",
    "validate",
]

__version__ = version("xtalk")

# Before torch's first tensor: large tensors in large pages, without which Linux takes long to make each.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# Loaded on first use, so that importing xtalk (and `xtalk --help`) does not load torch.
_HOMES = {
    "Codes": "xtalk.codes",
    "Crosscoder": "xtalk.crosscoder.crosscoder",
    "MlpContributions": "xtalk.interactions.contributions",
    "MlpWeights": "xtalk.models.mlp",
    "Run": "xtalk.runs.run",
    "RunConfig": "xtalk.runs.config",
    "RunFolder": "xtalk.runs.folder",
    "TextSource": "xtalk.data.documents",
    "XtalkError": "xtalk.errors",
    "activation_function": "xtalk.models.activation_functions",
    "check": "xtalk.api.proofs",
    "cluster": "xtalk.api.clusters",
    "compare": "xtalk.runs.comparing",
    "fidelity": "xtalk.api.fidelity",
    "interaction": "xtalk.interactions.measures",
    "load_model": "xtalk.models.language_model",
    "measure": "xtalk.api.measuring",
    "pair_interactions": "xtalk.api.pairs",
    "preset": "xtalk.runs.presets",
    "prove": "xtalk.api.proofs",
    "stack": "xtalk.crosscoder.stacking",
    "train": "xtalk.api.training",
    "transcoder_fidelity": "xtalk.api.transcoders",
    "validate": "xtalk.api.validation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xtalk' has no attribute {name!r}")
    with extras_named():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

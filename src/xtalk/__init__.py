"""xtalk measures, penalises and certifies the crosstalk between crosscoder features."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from xtalk.optional import extras_named

if TYPE_CHECKING:
    from xtalk.errors import XtalkError
    from xtalk.models.language_model import load_model
    from xtalk.runs.config import RunConfig, preset
    from xtalk.runs.folder import RunFolder
    from xtalk.runs.pipeline import cluster, dormant, evaluate, harvest, interact, report, run, train

__all__ = [
    "RunConfig",
    "RunFolder",
    "XtalkError",
    "cluster",
    "dormant",
    "evaluate",
    "harvest",
    "interact",
    "load_model",
    "preset",
    "report",
    "run",
    "train",
]

__version__ = version("xtalk")

# Loaded on first use, so that importing xtalk (and `xtalk --help`) does not load torch.
_HOMES = {
    "RunConfig": "xtalk.runs.config",
    "RunFolder": "xtalk.runs.folder",
    "XtalkError": "xtalk.errors",
    "cluster": "xtalk.runs.pipeline",
    "dormant": "xtalk.runs.pipeline",
    "evaluate": "xtalk.runs.pipeline",
    "harvest": "xtalk.runs.pipeline",
    "interact": "xtalk.runs.pipeline",
    "load_model": "xtalk.models.language_model",
    "preset": "xtalk.runs.config",
    "report": "xtalk.runs.pipeline",
    "run": "xtalk.runs.pipeline",
    "train": "xtalk.runs.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xtalk' has no attribute {name!r}")
    with extras_named():
        return getattr(import_module(_HOMES[name]), name)

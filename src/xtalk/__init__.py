"""xtalk measures, penalises and certifies the crosstalk between crosscoder features."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xtalk.errors import XtalkError
    from xtalk.models.language_model import load_model
    from xtalk.runs.config import RunConfig
    from xtalk.runs.folder import RunFolder
    from xtalk.runs.presets import preset
    from xtalk.runs.run import Run

__all__ = [
    "Run",
    "RunConfig",
    "RunFolder",
    "XtalkError",
    "load_model",
    "preset",
]

__version__ = version("xtalk")

# Loaded on first use, so that importing xtalk (and `xtalk --help`) does not load torch.
_HOMES = {
    "Run": "xtalk.runs.run",
    "RunConfig": "xtalk.runs.config",
    "RunFolder": "xtalk.runs.folder",
    "XtalkError": "xtalk.errors",
    "load_model": "xtalk.models.language_model",
    "preset": "xtalk.runs.presets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xtalk' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""xtalk measures, penalises and certifies the crosstalk between crosscoder features."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xtalk.errors import XtalkError

__all__ = ["XtalkError"]

__version__ = version("xtalk")

# Loaded on first use, so that importing xtalk (and `xtalk --help`) does not load torch.
_HOMES = {"XtalkError": "xtalk.errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xtalk' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

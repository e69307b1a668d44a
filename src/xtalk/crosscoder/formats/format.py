"""What a reader of crosscoders is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.provenance import Provenance


@dataclass(frozen=True)
class Stored:
    """A crosscoder as a folder holds it: its tensors by name, of the shapes of `config.shapes`, float32."""

    config: CrosscoderConfig
    tensors: Mapping[str, Tensor]
    provenance: Provenance


@dataclass(frozen=True)
class Format:
    """A way to keep a crosscoder in a folder.

    files: their names, for people and for downloads. detect: whether a folder claims to be of this format.
    read: the crosscoder in it; raises XtalkError for files that are broken.
    """

    name: str
    files: tuple[str, ...]
    detect: Callable[[Path], bool]
    read: Callable[[Path], Stored]

"""What a reader of crosscoders is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.provenance import Provenance
from xtalk.errors import XtalkError


class UnsupportedDictionary(XtalkError):
    """A dictionary of a known format, whole, for which xtalk has no meaning: the message says what it is."""


@dataclass(frozen=True)
class Stored:
    """A crosscoder as a folder holds it: its tensors by name, of the shapes of `config.shapes`, float32.

    notes: for people: what the format says that `config` and `provenance` do not, and what was folded.
    """

    config: CrosscoderConfig
    tensors: Mapping[str, Tensor]
    provenance: Provenance
    notes: tuple[str, ...] = ()


def named(stored: Stored, hook_names: str | Sequence[str]) -> Stored:
    """A crosscoder with other names for the hookpoints that it reads. Errors: XtalkError for another "
    "number.
    """
    names, had = (hook_names,) if isinstance(hook_names, str) else tuple(hook_names), stored.config.hook_names
    if len(names) != len(had) or len(set(names)) != len(names):
        raise XtalkError(
            f"hook_names {', '.join(names)}; expected {len(had)} different names, for {', '.join(had)}"
        )
    return replace(stored, config=stored.config.model_copy(update={"hook_names": names}))


@dataclass(frozen=True)
class Format:
    """A way to keep a crosscoder in a folder.

    files: their names, for people and for downloads. detect: whether a folder claims to be of this format.
    read: the crosscoder in it; raises XtalkError for files that are broken, UnsupportedDictionary for
    dictionaries that xtalk has no meaning for. more: patterns of further files, read where they are there.
    """

    name: str
    files: tuple[str, ...]
    detect: Callable[[Path], bool]
    read: Callable[[Path], Stored]
    more: tuple[str, ...] = ()

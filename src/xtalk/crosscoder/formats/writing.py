"""What writers of peers' formats share: what a format cannot carry, and what is kept beside the peer's "
"keys.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from xtalk.crosscoder.config import Architecture, CrosscoderConfig
from xtalk.crosscoder.formats.format import Stored
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import broken, first_reason
from xtalk.errors import XtalkError
from xtalk.files import replacing

RECORD = "xtalk"  # the key under which peers' files keep what they have no key for


class Record(BaseModel):
    """What a peer's keys do not say of a crosscoder of ours, kept beside them where the peer reads over "
    "it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    hook_names: tuple[str, ...]
    hook_names_out: tuple[str, ...] | None = None
    nonlinearity: Architecture
    k: int
    provenance: Provenance


@dataclass(frozen=True)
class Prepared:
    """A crosscoder in a peer's keys, ready to be written. losses: what the peer's format does not carry."""

    losses: tuple[str, ...]
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Writer:
    """A format that crosscoders are written in. prepare: XtalkError where nothing written would be right."""

    name: str
    prepare: Callable[[Stored], Prepared]


def record_of(stored: Stored) -> dict[str, Any]:
    """What `restored` needs, as JSON's values."""
    config = stored.config
    record = Record(
        hook_names=config.hook_names,
        hook_names_out=config.hook_names_out,
        nonlinearity=config.architecture,
        k=config.k,
        provenance=stored.provenance,
    )
    return record.model_dump(mode="json", exclude_none=True)


def restored(stored: Stored, record: Mapping[str, Any] | None, path: Path) -> Stored:
    """A crosscoder that was read from a peer's format, with what xtalk kept beside; as it is without.

    Errors: XtalkError for a record that does not fit it.
    """
    if record is None:
        return stored
    try:
        kept = Record.model_validate(record)
        read, meant = nonlinearity(stored.config.architecture), nonlinearity(kept.nonlinearity)
        if (read.infers_by_k, read.infers_by_threshold) != (meant.infers_by_k, meant.infers_by_threshold):
            raise ValueError(f"{RECORD} has the nonlinearity {meant.name}, the keys beside it {read.name}")
        config = CrosscoderConfig.model_validate(
            stored.config.model_dump()
            | {
                "hook_names": kept.hook_names,
                "hook_names_out": kept.hook_names_out,
                "architecture": kept.nonlinearity,
                "k": kept.k,
            }
        )
        if config.shapes != stored.config.shapes:
            raise ValueError(f"{RECORD} has other hookpoints than the tensors")
    except ValidationError as error:
        raise broken(path, ValueError(first_reason(error))) from error
    except ValueError as error:
        raise broken(path, error) from error
    return replace(stored, config=config, provenance=kept.provenance)


def cannot_carry(name: str, what: str, instead: str = "--to xtalk") -> XtalkError:
    """The error to raise where a format has no place for a part of a crosscoder."""
    return XtalkError(f"{name} has no {what}; nothing was written; convert {instead}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file, whole or not at all; a record goes to its metadata, which peers read over."""
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(whole, partial, None if record is None else {RECORD: json.dumps(record)})

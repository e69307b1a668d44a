"""What an activation store holds: its manifest, checked on reading."""

import hashlib
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xtalk.activations.harvest import SourceIdentity
from xtalk.errors import XtalkError

MANIFEST = "manifest.json"
SCHEMA = "xtalk.activations/1"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shard(_Strict):
    """One safetensors file; its name follows from its place in the manifest."""

    sequences: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Contents(_Strict):
    """What is stored: model and text by hash, hookpoints in order, S tokens of D numbers per sequence."""

    model: str
    text: str
    hookpoints: tuple[str, ...] = Field(min_length=1)
    sequences: int = Field(ge=1)
    length: int = Field(ge=1)
    d_model: int = Field(ge=1)
    dtype: Literal["bfloat16", "float32"]

    @property
    def identity(self) -> SourceIdentity:
        """What decides the activations."""
        return SourceIdentity(self.model, self.text, self.hookpoints)

    def digest(self) -> str:
        """The sha256 of the contents; every shard carries it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Manifest(_Strict):
    """manifest.json, written last: a folder without it is an unfinished store."""

    schema_version: Literal["xtalk.activations/1"] = Field(alias="schema")
    contents: Contents
    shards: tuple[Shard, ...] = Field(min_length=1)


def shard_name(number: int) -> str:
    """File name of a shard, the first being 0."""
    return f"shard-{number:05d}.safetensors"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store; XtalkError where there is none or it is not one."""
    path = folder / MANIFEST
    if not path.is_file():
        raise XtalkError(f"{folder} is no finished activation store: it has no {MANIFEST}; harvest it first")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise XtalkError(
            f"{path} is no manifest: {where}: {first['msg']}; remove the folder and harvest again"
        ) from error
    except OSError as error:
        raise XtalkError(f"{path} cannot be read: {error.strerror}") from error
    if sum(shard.sequences for shard in manifest.shards) != manifest.contents.sequences:
        raise XtalkError(
            f"{path}: its shards do not add up to its sequences; remove the folder and harvest again"
        )
    return manifest

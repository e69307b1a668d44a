"""The files of a peer's folder, read without trusting them: no pickle, no memory beyond the file's size."""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xtalk.crosscoder.saving import broken, first_reason
from xtalk.errors import XtalkError
from xtalk.parsing import parsed_json, parsed_yaml

_LONGEST_CONFIG = 1 << 24  # bytes; more is no configuration
_DEFLATE = 1032  # the most that deflate makes of a byte

_Config = TypeVar("_Config", bound=BaseModel)


def json_in(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file, or it holds something else."""
    return _mapping(path, parsed_json)


def yaml_in(path: Path) -> dict[str, Any] | None:
    """The mapping in a YAML file, its tuples as lists; None where there is no file, or it holds another."""
    return _mapping(path, parsed_yaml)


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any] | None:
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST_CONFIG:
            return None
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def checked(kind: type[_Config], path: Path, content: Mapping[str, Any] | None) -> _Config:
    """A configuration as a pydantic model. Errors: XtalkError names the file and the first wrong key."""
    if content is None:
        raise broken(path, ValueError("it is missing, or not a mapping of keys to values"))
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise broken(path, ValueError(first_reason(error))) from error


class Tensors:
    """The tensors of a file, by name, and the sizes of the axes met so far, by letter.

    record: what xtalk kept in the file beside a peer's keys; None in files that it did not write.
    """

    def __init__(
        self,
        path: Path,
        names: tuple[str, ...],
        load: Callable[[str], Tensor],
        record: dict[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.record = record
        self.names = names
        self.sizes: dict[str, int] = {}
        self._load = load

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def take(self, name: str, axes: str, *, finite: bool = True) -> Tensor:
        """A tensor in float32. axes: a letter each, of one size in all of the file; * for any size, 1 for 1.

        Errors: XtalkError for a tensor that is missing, not of numbers, of another shape, or not finite.
        """
        tensor = self._loaded(name)
        shape = tuple(tensor.shape)
        if len(shape) != len(axes) or 0 in shape or tensor.dtype.is_complex:
            raise self.wrong(f"{name} is {tensor.dtype} {shape}, expected {len(axes)} axes: {axes}")
        for axis, size in zip(axes, shape, strict=True):
            expected = size if axis == "*" else 1 if axis == "1" else self.sizes.setdefault(axis, size)
            if expected != size:
                raise self.wrong(f"{name} is {shape}, expected {axis} = {expected} of {axes}")
        whole = tensor.to(torch.float32).contiguous()
        if finite and not whole.isfinite().all():
            raise self.wrong(f"{name} has NaN or infinity")
        return whole

    def number(self, name: str) -> float:
        """A tensor of one number."""
        return self.take(name, "").item()

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Errors: XtalkError where it is missing."""
        return tuple(self._loaded(name).shape)

    def _loaded(self, name: str) -> Tensor:
        if name not in self:
            raise self.wrong(f"{name} is missing")
        try:
            return self._load(name)
        except (OSError, ValueError, RuntimeError, SafetensorError, zipfile.BadZipFile) as error:
            raise broken(self.path, error) from error

    def wrong(self, reason: str) -> XtalkError:
        """The error to raise where the file's tensors do not fit."""
        return broken(self.path, ValueError(reason))


def safetensors_in(path: Path) -> Tensors:
    """The tensors of a safetensors file, whose header may not claim more than the file holds."""
    try:
        file = safe_open(path, framework="pt")
        kept = (file.metadata() or {}).get("xtalk")
        return Tensors(path, tuple(file.keys()), file.get_tensor, None if kept is None else parsed_json(kept))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise broken(path, error) from error


def torch_in(path: Path) -> Tensors:
    """The tensors of a file of torch.save, which are read without unpickling anything else.

    Errors: XtalkError for a file that holds other objects, or tensors that are more than the file.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise broken(path, error) from error
    except Exception as error:  # torch raises what its parts raise: of a pickle, zip archives, tensors
        reason = (
            "it holds more than tensors, which xtalk does not unpickle"
            if "eights" in str(error)
            else (str(error).strip().splitlines() or ["cut short"])[0]
        )
        raise broken(path, ValueError(reason)) from error
    size = path.stat().st_size
    if not isinstance(loaded, dict):
        raise broken(path, ValueError(f"it holds a {type(loaded).__name__}, expected tensors by name"))
    found: dict[str, Tensor] = {}
    for name, value in loaded.items():
        name = str(name).removeprefix("_orig_mod.")  # of a module that was compiled
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.numel() * value.element_size() > size:
            raise broken(path, ValueError(f"{name} claims {tuple(value.shape)}, more than the file holds"))
        found[name] = value
    return Tensors(path, tuple(found), found.__getitem__)


def npz_in(path: Path) -> Tensors:
    """The arrays of a file of numpy.savez.

    Errors: XtalkError for objects, and for more than the file holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise broken(path, error) from error

    def load(name: str) -> Tensor:
        entry = entries[name]
        if entry.compress_size > path.stat().st_size or entry.file_size > _DEFLATE * entry.compress_size:
            raise ValueError(f"{name} claims {entry.file_size} bytes, more than the file holds")
        with zipfile.ZipFile(path) as archive, archive.open(entry) as file:
            content = file.read()
        stream = io.BytesIO(content)
        old = np.lib.format.read_magic(stream) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = header(stream)
        if dtype.hasobject or dtype.kind not in "fiub":
            raise ValueError(f"{name} is of {dtype}, expected numbers")
        if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            raise ValueError(f"{name} claims {shape}, and has {len(content)} bytes")
        array = np.frombuffer(content, dtype, offset=stream.tell())
        return torch.from_numpy(array.reshape(shape, order="F" if by_columns else "C").copy())

    return Tensors(path, tuple(entries), load)

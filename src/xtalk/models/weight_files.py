"""A model's weight files: which there are, and their tensors, read without trusting the files."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.source import SAFETENSORS, TORCH

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class Stored(Protocol):
    """The tensors of a file, by name; a slice has `get_dtype`, and rows by index."""

    def keys(self) -> Sequence[str]: ...  # noqa: D102
    def get_tensor(self, name: str) -> Tensor: ...  # noqa: D102
    def get_slice(self, name: str) -> Any: ...  # noqa: D102


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights: safetensors, or else torch's, in one or in shards.

    Errors: XtalkError for a folder without them, and for an index of shards that is broken or names what is
    no file of the folder.
    """
    for single, index in (SAFETENSORS, TORCH):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder / index)
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    seen = f"no weights but {pickles[0]}" if pickles else "no weights"
    raise XtalkError(
        f"the model {str(folder)!r} has {seen}; expected model.safetensors or pytorch_model.bin; save it "
        "with save_pretrained"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        shards = sorted(index.parent / name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise XtalkError(
            f"{str(index)!r} is no index of shards; expected JSON with a weight_map; download it again"
        ) from error
    if outside := [shard for shard in shards if shard.parent != index.parent or shard.name == ".."]:
        raise XtalkError(
            f"{str(index)!r} names {str(outside[0])!r}, which is no file of its folder; expected names; "
            "download it again"
        )
    return shards


def check_readable(file: Path) -> None:
    """Errors: XtalkError for a file that is missing, cut short, or holds more than tensors."""
    with opened(file):
        pass


@contextmanager
def opened(file: Path) -> Iterator[Stored]:
    """The tensors of a weight file; of torch's, without unpickling anything but tensors."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as stored:
                yield stored
        else:
            yield _TorchFile(_torch_tensors(file))
    except (OSError, SafetensorError) as error:
        raise XtalkError(
            f"{str(file)!r} cannot be read: {error}; expected a whole file of weights; copy or download it "
            "again"
        ) from error


def _torch_tensors(file: Path) -> Mapping[str, Tensor]:
    try:
        loaded: object = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except OSError:
        raise
    except Exception as error:  # torch raises what its parts raise: of a pickle, zip archives, tensors
        reason = (str(error).strip().splitlines() or ["cut short"])[0]
        if "eights" in reason:
            reason = "it holds more than tensors, which xtalk does not unpickle"
        raise XtalkError(
            f"{str(file)!r} cannot be read: {reason}; load it with transformers where you trust it, and save "
            "it again with save_pretrained"
        ) from error
    size = file.stat().st_size
    tensors = cast(Mapping[str, object], loaded) if isinstance(loaded, Mapping) else {}
    if not tensors:
        raise XtalkError(f"{str(file)!r} holds no tensors by name; expected a model's weights")
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise XtalkError(f"{str(file)!r} holds {name}, which is no tensor; expected a model's weights")
        if tensor.numel() * tensor.element_size() > size:
            raise XtalkError(
                f"{str(file)!r} claims {tuple(tensor.shape)} for {name}, which is more than it holds; "
                "download it again"
            )
        found[name] = tensor
    return found


class _TorchFile:
    """The tensors of a file of torch's, as safetensors has them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def keys(self) -> Sequence[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    def get_slice(self, name: str) -> "_TorchSlice":
        return _TorchSlice(self._tensors[name])


class _TorchSlice:
    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def get_dtype(self) -> str:
        return _NAMES.get(self._tensor.dtype, str(self._tensor.dtype))

    def __getitem__(self, rows: slice) -> Tensor:
        return self._tensor[rows]

"""Activations on disk: safetensors shards and a manifest, verified by hash on opening."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xtalk.activations.harvest import check_finite
from xtalk.activations.manifest import (
    DTYPES,
    MANIFEST,
    SCHEMA,
    Contents,
    Manifest,
    Shard,
    read_manifest,
    shard_name,
)
from xtalk.activations.stream import ActivationBatches, ActivationSource
from xtalk.data import TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.files import remove_partial, replacing, sha256_of, write_text

_SHARD_BYTES = 2**28
_ROWS_AT_ONCE = 8


def estimate_bytes(
    sequences: int, length: int, hookpoints: int, d_model: int, dtype: torch.dtype = torch.bfloat16
) -> int:
    """Bytes on disk of a store, to within a percent from above: activations, token ids, document numbers."""
    per_sequence = _bytes_per_sequence(length, hookpoints, d_model, dtype)
    shards = -(-sequences // _sequences_per_shard(per_sequence))
    return sequences * per_sequence + shards * 1024 + 4096


class ActivationStore:
    """A source of activations read from a folder; made by `write` or `open`.

    Each shard holds `activations` (n, S, P, D), `tokens` (n, S) and `documents` (n, S), sequences in their
    own order. `ActivationBatches(store, ...)` gives the batches that a stream of the same seed would give,
    rounded to the store's dtype.
    """

    def __init__(self, folder: Path, manifest: Manifest, device: torch.device | str) -> None:
        self.manifest = manifest
        self.identity = manifest.contents.identity
        self.d_model = manifest.contents.d_model
        self._device = torch.device(device)
        self._shards = [
            _open_shard(folder / shard_name(number), shard, manifest.contents)
            for number, shard in enumerate(manifest.shards)
        ]
        self._first_row_of_shard = np.cumsum([0, *(shard.sequences for shard in manifest.shards)])
        tokens, documents = (
            np.concatenate([shard.get_tensor(name).numpy() for shard in self._shards])
            for name in ("tokens", "documents")
        )
        self.sequences: TokenSequences = token_sequences(tokens, documents)
        if self.sequences.text_hash != self.identity.text:
            raise XtalkError(
                f"{folder}: the tokens are not those of its manifest; remove it and harvest again"
            )

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        verify: bool = True,
        model_hash: str | None = None,
        text_hash: str | None = None,
        hookpoints: Sequence[object] | None = None,
        device: torch.device | str = "cpu",
    ) -> "ActivationStore":
        """Open a finished store, for reading onto `device`.

        `verify` compares every shard with the manifest's sha256; sizes and tokens are compared in any case.
        What is given of model_hash, text_hash and hookpoints (objects or names) must be the store's.
        Raises XtalkError where anything differs.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        found = manifest.contents
        expected = {
            "model": model_hash,
            "text": text_hash,
            "hookpoints": None if hookpoints is None else tuple(map(str, hookpoints)),
        }
        for name, value in expected.items():
            if value is not None and getattr(found, name) != value:
                raise XtalkError(
                    f"the activations in {folder} are of another {name}: {getattr(found, name)}; "
                    f"expected {value}; harvest into another folder"
                )
        for number, shard in enumerate(manifest.shards):
            _check_file(folder / shard_name(number), shard, verify)
        return cls(folder, manifest, device)

    @classmethod
    def write(
        cls,
        folder: str | Path,
        stream: ActivationBatches,
        dtype: torch.dtype = torch.bfloat16,
        progress: Callable[[int], object] = lambda tokens: None,
    ) -> "ActivationStore":
        """Store the activations of all sequences of a stream, and open the store.

        Files appear whole or not at all, the manifest last; an interrupted write goes on where it stopped,
        and a finished store of the same contents is left as it is. `progress` gets the tokens just added.
        Raises XtalkError when the disk is too small, or the folder holds another store.
        """
        folder, source = Path(folder), stream.source
        contents = _contents(source, dtype)
        if (folder / MANIFEST).exists():
            if read_manifest(folder).contents != contents:
                raise XtalkError(f"{folder} holds other activations; choose another folder or remove it")
            return cls.open(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial(folder)
            _check_space(folder, contents)
            shards = _write_shards(folder, source, contents, progress)
            manifest = Manifest(schema=SCHEMA, contents=contents, shards=tuple(shards))
            write_text(folder / MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
        except (OSError, SafetensorError) as error:
            raise XtalkError(
                f"activations cannot be written to {folder}: {error}; what is there is kept"
            ) from error
        return cls.open(folder, verify=False)

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Activations of the sequences `rows`, in that order, in parts; the store's dtype."""
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = [self._row(int(row)) for row in rows[first : first + _ROWS_AT_ONCE]]
            part_mSPD = torch.cat(part).to(self._device)
            check_finite(part_mSPD, self.identity.hookpoints)
            yield part_mSPD

    def _row(self, row: int) -> Tensor:
        number = int(np.searchsorted(self._first_row_of_shard, row, side="right")) - 1
        local = row - int(self._first_row_of_shard[number])
        return self._shards[number].get_slice("activations")[local : local + 1]


def _contents(source: ActivationSource, dtype: torch.dtype) -> Contents:
    names = {value: name for name, value in DTYPES.items()}
    if dtype not in names:
        raise XtalkError(f"a store of {dtype}; expected one of {', '.join(DTYPES)}")
    return Contents.model_validate(
        {
            "model": source.identity.model,
            "text": source.identity.text,
            "hookpoints": source.identity.hookpoints,
            "sequences": len(source.sequences),
            "length": source.sequences.length,
            "d_model": source.d_model,
            "dtype": names[dtype],
        }
    )


def _bytes_per_sequence(length: int, hookpoints: int, d_model: int, dtype: torch.dtype) -> int:
    return length * (hookpoints * d_model * dtype.itemsize + 8)


def _sequences_per_shard(bytes_per_sequence: int) -> int:
    return max(1, _SHARD_BYTES // bytes_per_sequence)


def _check_space(folder: Path, contents: Contents) -> None:
    needed = estimate_bytes(
        contents.sequences,
        contents.length,
        len(contents.hookpoints),
        contents.d_model,
        DTYPES[contents.dtype],
    )
    present = sum(path.stat().st_size for path in folder.glob("shard-*"))
    free = shutil.disk_usage(folder).free
    if needed - present > free:
        raise XtalkError(
            f"activations of {contents.sequences * contents.length} tokens take {needed / 1e9:.2f} GB, and "
            f"{folder} has {free / 1e9:.2f} GB free; "
            "stream without a store, or give another disk or less text"
        )


def _write_shards(
    folder: Path, source: ActivationSource, contents: Contents, progress: Callable[[int], object]
) -> Iterator[Shard]:
    dtype = DTYPES[contents.dtype]
    per_sequence = _bytes_per_sequence(contents.length, len(contents.hookpoints), contents.d_model, dtype)
    size = _sequences_per_shard(per_sequence)
    for number, first in enumerate(range(0, contents.sequences, size)):
        rows = np.arange(first, min(first + size, contents.sequences))
        path = folder / shard_name(number)
        label = {"contents": contents.digest()}
        if _label(path) == label:
            progress(len(rows) * contents.length)
        else:
            parts: list[Tensor] = []
            for part_mSPD in source.read(rows):
                parts.append(part_mSPD.to("cpu", dtype))
                progress(len(part_mSPD) * contents.length)
            tensors = {
                "activations": torch.cat(parts),
                "tokens": torch.from_numpy(source.sequences.tokens[rows]),
                "documents": torch.from_numpy(source.sequences.documents[rows]),
            }
            with replacing(path) as partial:
                save_file(tensors, partial, label)
        yield Shard(sequences=len(rows), bytes=path.stat().st_size, sha256=sha256_of(path))


def _label(path: Path) -> dict[str, str] | None:
    """The metadata of a shard that an interrupted write finished; None where there is none."""
    try:
        with safe_open(path, framework="pt") as shard:
            return shard.metadata()
    except (OSError, SafetensorError):
        return None


def _check_file(path: Path, shard: Shard, verify: bool) -> None:
    if not path.is_file():
        raise XtalkError(f"{path} is missing; remove the folder and harvest again")
    if path.stat().st_size != shard.bytes:
        raise XtalkError(
            f"{path} has {path.stat().st_size} bytes, not {shard.bytes}; remove the folder and harvest again"
        )
    if verify and sha256_of(path) != shard.sha256:
        raise XtalkError(
            f"{path} is corrupted: its sha256 is not the manifest's; remove the folder and harvest again"
        )


def _open_shard(path: Path, shard: Shard, contents: Contents) -> safe_open:
    rows = (shard.sequences, contents.length)
    expected = {
        "activations": (
            {"bfloat16": "BF16", "float32": "F32"}[contents.dtype],
            [*rows, len(contents.hookpoints), contents.d_model],
        ),
        "tokens": ("I32", [*rows]),
        "documents": ("I32", [*rows]),
    }
    try:
        opened = safe_open(path, framework="pt")
        found = {name: opened.get_slice(name) for name in list(opened.keys())}
        shapes = {name: (piece.get_dtype(), piece.get_shape()) for name, piece in found.items()}
    except SafetensorError as error:
        raise XtalkError(f"{path} is corrupted: {error}; remove the folder and harvest again") from error
    if shapes != expected:
        raise XtalkError(f"{path} holds {shapes}; expected {expected}; remove the folder and harvest again")
    return opened

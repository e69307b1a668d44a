"""Gemma Scope 2: config.json and params.safetensors; crosscoders have a file of parameters by layer."""

import re
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from xtalk.crosscoder.formats.contents import Tensors, checked, json_in, safetensors_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint, unnamed
from xtalk.crosscoder.provenance import Provenance

CONFIG, PARAMS = "config.json", "params.safetensors"
_LAYERS = tuple(f"params_layer_{i}.safetensors" for i in range(100))
_PATTERNS = ("params_layer_?.safetensors", "params_layer_??.safetensors")


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    architecture: str = "jump_relu"
    model_name: str | None = None
    hf_hook_point_in: str | None = None
    hf_hook_point_out: str | None = None


def _read(folder: Path) -> Stored:
    content = json_in(folder / CONFIG)
    config = checked(_Config, folder / CONFIG, content or {})
    if config.architecture != "jump_relu":
        raise UnsupportedDictionary(
            f"a dictionary of Gemma Scope 2 with the architecture {config.architecture!r}; xtalk reads "
            "jump_relu; choose another"
        )
    if (folder / PARAMS).is_file():
        return _single(folder, config)
    return _crosscoder(folder, config)


def _single(folder: Path, config: _Config) -> Stored:
    tensors = safetensors_in(folder / PARAMS)
    if len(tensors.shape_of("w_enc")) == 3:
        raise UnsupportedDictionary(
            "a cross-layer transcoder of Gemma Scope 2 in one file; xtalk reads its single layers' SAEs and "
            "transcoders, and its crosscoders; choose one of these"
        )
    read, out = config.hf_hook_point_in, config.hf_hook_point_out
    skip = "affine_skip_connection"
    return stored(
        {
            "W_enc": tensors.take("w_enc", "DL"),
            "W_dec": tensors.take("w_dec", "LD"),
            "b_enc": tensors.take("b_enc", "L"),
            "b_dec": tensors.take("b_dec", "D"),
            "W_skip": tensors.take(skip, "DD") if skip in tensors else None,
        },
        threshold=tensors.take("threshold", "L"),
        hook_names=hookpoint(read) if read else unnamed(1),
        hook_names_out=hookpoint(out) if out else None,
        architecture="jumprelu",
        provenance=Provenance(model_name=config.model_name),
        notes=("of Gemma Scope 2", *hook_notes(*(name for name in (read, out) if name))),
    )


def _crosscoder(folder: Path, config: _Config) -> Stored:
    """The layers' encoders are summed to one code, which each layer decodes by itself."""
    files = [safetensors_in(folder / name) for name in _LAYERS if (folder / name).is_file()]
    first = files[0]
    for file in files:
        file.sizes = first.sizes
    shared = {}
    for name in ("b_enc", "threshold"):
        values = [file.take(name, "L") for file in files]
        if any(not torch.equal(value, values[0]) for value in values):
            raise UnsupportedDictionary(
                f"a crosscoder of Gemma Scope 2 whose layers differ in {name}; xtalk knows crosscoders of "
                "one code for all layers; choose another"
            )
        shared[name] = values[0]
    layers = _layers(folder, files)
    return stored(
        {
            "W_enc": torch.stack([file.take("w_enc", "DL") for file in files]),
            "W_dec": torch.stack([file.take("w_dec", "LD") for file in files], dim=1),
            "b_enc": shared["b_enc"],
            "b_dec": torch.stack([file.take("b_dec", "D") for file in files]),
        },
        threshold=shared["threshold"],
        hook_names=layers or unnamed(len(files)),
        architecture="jumprelu",
        provenance=Provenance(model_name=config.model_name),
        notes=("a crosscoder of Gemma Scope 2: the layers' encoders are summed",),
    )


def _layers(folder: Path, files: list[Tensors]) -> tuple[str, ...]:
    """The hookpoints, by the folder's name: layer_7_13_17_22_width_... reads the outputs of those blocks."""
    match = re.match(r"layer_(\d+(?:_\d+)*)_", folder.absolute().name)
    numbers = match[1].split("_") if match else []
    return tuple(f"blocks.{n}.resid_post" for n in numbers) if len(numbers) == len(files) else ()


def _detect(folder: Path) -> bool:
    if (folder / PARAMS).is_file():
        return (json_in(folder / CONFIG) or {}).get("architecture") == "jump_relu"
    return (folder / _LAYERS[0]).is_file()


GEMMA_SCOPE_2 = Format("Gemma Scope 2", (CONFIG, PARAMS), _detect, _read, more=_PATTERNS)

"""circuit-tracer's single-layer transcoders: layer_N.safetensors, and config.yaml beside."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, checked, safetensors_in, yaml_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint
from xtalk.crosscoder.provenance import Provenance

CONFIG = "config.yaml"
_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_CROSSLAYER = "W_enc_0.safetensors"
_LAYERS = tuple(f"layer_{layer}.safetensors" for layer in range(200))
_THRESHOLD = "activation_function.threshold"


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model_name: str | None = None
    feature_input_hook: str = "mlp.hook_in"
    feature_output_hook: str = "hook_mlp_out"
    k: int | None = Field(default=None, ge=1)


def _read(path: Path) -> Stored:
    layers = _layers(path)
    folder = path if path.is_dir() else path.parent
    if (folder / _CROSSLAYER).is_file():
        raise UnsupportedDictionary(
            "a cross-layer transcoder of circuit-tracer; xtalk reads its single-layer transcoders; choose one"
        )
    if len(layers) > 1:
        raise UnsupportedDictionary(
            f"the transcoders of {len(layers)} layers of circuit-tracer; xtalk reads one at a time; give a "
            "layer's "
            f"file, such as {layers[0]}"
        )
    config = checked(_Config, folder / CONFIG, yaml_in(folder / CONFIG) or {})
    tensors = safetensors_in(layers[0])
    W_enc, W_dec = tensors.take("W_enc", "LD").T, _decoder(tensors)
    W_skip = tensors.take("W_skip", "DD").T if "W_skip" in tensors else None
    threshold = tensors.take(_THRESHOLD, "L") if _threshold_by_latent(tensors) else None
    if threshold is None and _THRESHOLD in tensors:
        threshold = tensors.take(_THRESHOLD, "").expand(len(W_dec))
    match = _LAYER.fullmatch(layers[0].name)
    block = f"blocks.{match[1] if match else 0}"
    read, written = f"{block}.{config.feature_input_hook}", f"{block}.{config.feature_output_hook}"
    architecture = "jumprelu" if threshold is not None else "topk" if config.k else "relu"
    return stored(
        {
            "W_enc": W_enc,
            "W_dec": W_dec,
            "b_enc": tensors.take("b_enc", "L"),
            "b_dec": tensors.take("b_dec", "D"),
            "W_skip": W_skip,
        },
        threshold=threshold,
        hook_names=hookpoint(read),
        hook_names_out=hookpoint(written),
        architecture=architecture,
        k=config.k if architecture == "topk" else None,
        provenance=Provenance(model_name=config.model_name),
        notes=("a single-layer transcoder of circuit-tracer", *hook_notes(read, written)),
    )


def _threshold_by_latent(tensors: Tensors) -> bool:
    return _THRESHOLD in tensors and len(tensors.shape_of(_THRESHOLD)) == 1


def _decoder(tensors: Tensors) -> Tensor:
    """W_dec (L, D); older files have its transpose, which sizes tell."""
    D, L = tensors.sizes["D"], tensors.sizes["L"]
    if D != L and tensors.shape_of("W_dec") == (D, L):
        return tensors.take("W_dec", "DL").T
    return tensors.take("W_dec", "LD")


def _layers(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [path / name for name in _LAYERS if (path / name).is_file()]


def _detect(path: Path) -> bool:
    if path.is_file():
        return bool(_LAYER.fullmatch(path.name))
    return bool(_layers(path)) or (path / _CROSSLAYER).is_file()


CIRCUIT_TRACER = Format("circuit-tracer", (CONFIG,), _detect, _read)  # a layer's file is asked for by name

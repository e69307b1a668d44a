"""crosslayer-transcoder's format: config.yaml, a tree of classes, and checkpoint.safetensors."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, safetensors_in, yaml_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import unnamed

CONFIG, WEIGHTS = "config.yaml", "checkpoint.safetensors"
_LARGEST = 1 << 31  # numbers in an encoder: that of all layers is mostly zeros


def _read(folder: Path) -> Stored:
    model = _model(folder)
    tensors = safetensors_in(folder / WEIGHTS)
    W_PDF, b_PF = tensors.take("encoder.W", "PDF"), tensors.take("encoder.b", "PF")
    P, D, F = W_PDF.shape
    crosslayer = _class(model, "decoder") == "CrosslayerDecoder"
    what = (
        f"a {'cross-' if crosslayer else 'per-'}layer transcoder of {P} layers, width {D}, {F} latents each"
    )
    nonlinearity = _class(model, "nonlinearity")
    folded = model.get("is_folded") is True or (
        model.get("input_standardizer") is None and model.get("output_standardizer") is None
    )
    reason = None
    if nonlinearity not in ("JumpReLU", "ReLU"):
        reason = f"its {nonlinearity} chooses latents by layer or by batch"
    elif not folded:
        reason = "its standardizers are not folded"
    elif P * P * D * F > _LARGEST:
        reason = "as one dictionary it takes more memory than there is use for"
    if reason is not None:
        raise UnsupportedDictionary(
            f"{what}, of crosslayer-transcoder; xtalk does not read it: {reason}; choose a folded one with "
            "JumpReLU"
        )
    threshold = tensors.take("nonlinearity.theta", "1PF").flatten() if nonlinearity == "JumpReLU" else None
    return stored(
        {
            "W_enc": _blocks(W_PDF),
            "W_dec": _decoder(tensors, crosslayer),
            "b_enc": b_PF.flatten(),
            "b_dec": tensors.take("decoder.b", "PD"),
        },
        threshold=threshold,
        hook_names=unnamed(P, "input"),
        hook_names_out=unnamed(P, "output"),
        architecture="relu" if threshold is None else "jumprelu",
        notes=(
            what,
            f"read as one dictionary of {P * F} latents, layer by layer",
            "the files name no hookpoints",
        ),
    )


def _blocks(W_PDF: Tensor) -> Tensor:
    """Each layer's encoder at its own latents, and nothing at the others': (P, D, P * F)."""
    P, D, F = W_PDF.shape
    whole = W_PDF.new_zeros(P, D, P, F)
    for layer in range(P):
        whole[layer, :, layer] = W_PDF[layer]
    return whole.view(P, D, P * F)


def _decoder(tensors: Tensors, crosslayer: bool) -> Tensor:
    """What each latent writes to each layer, (P * F, P, D); cross-layer: to its own and later ones."""
    P, D, F = (tensors.sizes[axis] for axis in "PDF")
    whole = torch.zeros(P, F, P, D)
    W_PFD = None if crosslayer else tensors.take("decoder.W", "PFD")
    for target in range(P):
        if W_PFD is not None:
            whole[target, :, target] = W_PFD[target]
        else:
            W_sFD = tensors.take(f"decoder.W_{target}", "*FD")
            if len(W_sFD) != target + 1:
                raise tensors.wrong(f"decoder.W_{target} is of {len(W_sFD)} layers, expected {target + 1}")
            whole[: target + 1, :, target] = W_sFD
    return whole.view(P * F, P, D)


def _model(folder: Path) -> dict[str, Any]:
    """The arguments of the model's class."""
    model = (yaml_in(folder / CONFIG) or {}).get("model")
    arguments = model.get("init_args") if isinstance(model, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _class(model: dict[str, Any], part: str) -> str:
    content = model.get(part)
    path = content.get("class_path") if isinstance(content, dict) else None
    return path.rpartition(".")[2] if isinstance(path, str) else "unknown"


def _detect(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and "crosslayer_transcoder" in str(
        (yaml_in(folder / CONFIG) or {}).get("model")
    )


CROSSLAYER = Format("crosslayer-transcoder", (CONFIG, WEIGHTS), _detect, _read)

"""The format of the paper's repository: model_cfg.yaml and model.pt, of torch.save."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, checked, torch_in, yaml_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import unnamed
from xtalk.crosscoder.provenance import Provenance

CONFIG, WEIGHTS = "model_cfg.yaml", "model.pt"
LOG_THRESHOLD = "hidden_activation.log_threshold_H"


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    d_model: int
    hidden_dim: int
    hidden_activation_classname: str
    hidden_activation_cfg: dict[str, Any] = {}


def _read(folder: Path) -> Stored:
    config = checked(_Config, folder / CONFIG, yaml_in(folder / CONFIG))
    tensors = torch_in(folder / WEIGHTS)
    tensors.sizes |= {"D": config.d_model, "H": config.hidden_dim}
    W_enc, shape = _crosscoding(tensors, "W_enc", "DH", front=True)
    W_dec, _ = _crosscoding(tensors, "W_dec", "D", front=False)
    b_dec, _ = _crosscoding(tensors, "b_dec", "D", front=True)
    notes = ["of the paper's repository", *_folded(tensors)]
    kind, k, threshold = config.hidden_activation_classname, None, None
    if kind == "TopkActivation":
        k = config.hidden_activation_cfg.get("k")
        notes.append(
            "the peer's topk keeps negative values where fewer than k are positive; xtalk makes them 0"
        )
    elif kind == "JumpReLUActivation":
        threshold = tensors.take(LOG_THRESHOLD, "H").exp()
        notes.append("log_threshold: read as its exponential")
    elif kind != "ReLUActivation":
        raise UnsupportedDictionary(
            f"a crosscoder of the paper's repository with {kind}, where a token's code depends on its "
            "batch; xtalk reads ReLU, Topk and JumpReLU; choose another"
        )
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise tensors.wrong(f"k is {k!r} in {CONFIG}, expected a number from 1 on")
    names = (
        [f"model_{m}/layer_{p}" for m in range(shape[0]) for p in range(shape[1])] if len(shape) == 2 else []
    )
    return stored(
        {
            "W_enc": W_enc,
            "W_dec": W_dec,
            "b_enc": tensors.take("b_enc_H", "H"),
            "b_dec": b_dec,
            "W_skip": _skip(tensors, len(W_enc)),
        },
        threshold=threshold,
        hook_names=tuple(names) or unnamed(len(W_enc)),
        architecture={"TopkActivation": "topk", "JumpReLUActivation": "jumprelu"}.get(kind, "relu"),
        k=k,
        provenance=Provenance(),
        notes=(*notes, "the files do not name the hookpoints"),
    )


def _crosscoding(tensors: Tensors, name: str, rest: str, *, front: bool) -> tuple[Tensor, tuple[int, ...]]:
    """A weight with its crosscoding axes as one, P, and those axes' sizes.

    Names say the axes: X, or M and L in older files, where a model's layers are together.
    """
    for X in ("X", "ML"):
        suffix = f"{X}{rest}" if front else f"H{X}{rest}"
        if f"{name}_{suffix}" in tensors:
            axes = len(rest) + (0 if front else 1)
            extra = len(tensors.shape_of(f"{name}_{suffix}")) - axes
            letters = "XYZ"[:extra] if X == "X" else "ML"[:extra]
            tensor = tensors.take(f"{name}_{suffix}", f"{letters}{rest}" if front else f"H{letters}{rest}")
            first = 0 if front else 1
            return (
                (tensor.flatten(first, first + extra - 1) if extra else tensor.unsqueeze(first)),
                tuple(tensor.shape[first : first + extra]),
            )
    raise tensors.wrong(f"{name} is missing")


def _skip(tensors: Tensors, P: int) -> Tensor | None:
    if "W_skip_XdXd" not in tensors:
        return None
    D = tensors.sizes["D"]
    return tensors.take("W_skip_XdXd", "FF").view(P, D, P, D)


def _folded(tensors: Tensors) -> tuple[str, ...]:
    """Whether the scaling of activations is in the weights."""
    whole = "is_folded" in tensors and bool(tensors.number("is_folded"))
    older = "folded_scaling_factors_ML" in tensors and "is_folded" not in tensors
    if whole or older:
        return ("the scaling of activations is folded into the weights",)
    return ("the scaling of activations is not folded, and not in the files: scale them as in training",)


def _detect(folder: Path) -> bool:
    keys = (yaml_in(folder / CONFIG) or {}).keys()
    return (folder / WEIGHTS).is_file() and {"d_model", "hidden_dim"} <= keys


PAPER = Format("the paper's repository", (CONFIG, WEIGHTS), _detect, _read)

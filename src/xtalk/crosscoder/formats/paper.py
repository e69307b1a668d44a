"""The format of the paper's repository: model_cfg.yaml and model.pt, of torch.save."""

from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, checked, torch_in, yaml_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import unnamed
from xtalk.crosscoder.formats.writing import RECORD, Prepared, Writer, cannot_carry, record_of, restored
from xtalk.crosscoder.nonlinearities import Nonlinearity, nonlinearity
from xtalk.crosscoder.provenance import Provenance
from xtalk.files import replacing, write_text

CONFIG, WEIGHTS = "model_cfg.yaml", "model.pt"
_BANDWIDTH = 2.0  # of training, which no inference uses
LOG_THRESHOLD = "hidden_activation.log_threshold_H"


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    d_model: int
    hidden_dim: int
    hidden_activation_classname: str
    hidden_activation_cfg: dict[str, Any] = {}
    xtalk: dict[str, Any] | None = None


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
    whole = stored(
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
        notes=(*notes, "the peer's files do not name the hookpoints"),
    )
    return restored(whole, config.xtalk, folder / CONFIG)


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


def _prepared(crosscoder: Stored) -> Prepared:
    """As the repository's crosscoder with ReLU, TopK or JumpReLU, whose thresholds it keeps as logarithms.

    Errors: XtalkError for transcoders, skips and gates.
    """
    config, tensors = crosscoder.config, crosscoder.tensors
    if config.hook_names_out is not None or config.skip or config.gated:
        raise cannot_carry("the paper's repository", "transcoders, skips and gates")
    kind, threshold, losses = nonlinearity(config.architecture), tensors["threshold"], []
    factors = crosscoder.provenance.scaling_factors
    whole = {
        "W_enc_XDH": tensors["W_enc"],
        "W_dec_HXD": tensors["W_dec"],
        "b_enc_H": tensors["b_enc"],
        "b_dec_XD": tensors["b_dec"],
        "folded_scaling_factors_X": torch.tensor(factors or [1.0] * len(config.hook_names)),
        "is_folded": torch.tensor(True),
    }
    activation: dict[str, Any] = {}
    if kind.infers_by_threshold:
        activation = {"size": config.d_sae, "bandwidth": _BANDWIDTH, "backprop_through_input": True}
        whole[LOG_THRESHOLD] = threshold.clamp(min=torch.finfo(torch.float32).tiny).log()
        if not torch.equal(whole[LOG_THRESHOLD].exp(), threshold):
            losses.append("the thresholds' last digits, and those below 0: their logarithms are kept")
    elif threshold.any():
        losses.append(f"the thresholds, which its {kind.name} has not")
    keys = {
        "crosscoding_dims": (len(config.hook_names),),
        "d_model": config.d_in,
        "hidden_dim": config.d_sae,
        "hidden_activation_classname": _classname(kind),
        "hidden_activation_cfg": activation | ({"k": config.k} if kind.infers_by_k else {}),
        RECORD: record_of(crosscoder),
    }

    def write(folder: Path) -> None:
        with replacing(folder / WEIGHTS) as partial:
            torch.save({name: tensor.detach().contiguous() for name, tensor in whole.items()}, partial)
        write_text(folder / CONFIG, yaml.dump(keys, Dumper=_Tuples))

    return Prepared(tuple(losses), write)


def _classname(kind: Nonlinearity) -> str:
    if kind.infers_by_k:
        return "TopkActivation"
    return "JumpReLUActivation" if kind.infers_by_threshold else "ReLUActivation"


class _Tuples(yaml.SafeDumper):
    """YAML with Python's tuples marked, as the repository reads them."""


_Tuples.add_representer(
    tuple, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:python/tuple", data)
)

PAPER_WRITER = Writer("paper", _prepared)

"""Crosscoders on disk: `cfg.json` and `sae_weights.safetensors`, never pickle (DESIGN section 9)."""

import json
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xtalk.crosscoder.config import Architecture, CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.files import replacing, sha256_of, write_text

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


class Provenance(BaseModel):
    """Where a crosscoder comes from.

    model_name, model_weights_hash: the language model, its weights by sha256 (several models: theirs, joined
    as their activations were). text_hash: the token sequences it was trained on. scaling_factors: by
    hookpoint; already folded into the weights, kept for the record. penalties: weight by name, none of them
    zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model_name: str
    model_weights_hash: str
    text_hash: str
    scaling_factors: tuple[float, ...]
    training_tokens: int = Field(ge=0)
    train_batch_size_tokens: int = Field(ge=1)
    penalties: dict[str, float]
    seed: int


class _Cfg(Provenance):
    """cfg.json, in the ecosystem's keys; its `nonlinearity` is `CrosscoderConfig.architecture`."""

    format_version: Literal[1] = 1
    architecture: Literal["crosscoder"] = "crosscoder"
    nonlinearity: Architecture
    d_in: int
    d_sae: int
    k: int
    hook_names: tuple[str, ...]
    sae_weights_sha256: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.config
        if len(self.scaling_factors) != len(self.hook_names):
            raise ValueError(
                f"{len(self.scaling_factors)} scaling_factors for {len(self.hook_names)} hook_names"
            )
        return self

    @property
    def config(self) -> CrosscoderConfig:
        sizes = {name: getattr(self, name) for name in ("d_in", "d_sae", "k", "hook_names")}
        return CrosscoderConfig(**sizes, architecture=self.nonlinearity)


def save_crosscoder(folder: Path, crosscoder: Crosscoder, provenance: Provenance) -> None:
    """Write a crosscoder and where it comes from into a folder, cfg.json last.

    Errors: XtalkError for weights that are not finite, and a full disk.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in crosscoder.state_dict().items()}
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise XtalkError(
            f"{', '.join(bad)} of the crosscoder has NaN or infinity; it was not saved; train again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
    config = crosscoder.config.model_dump(exclude={"architecture"})
    cfg = _Cfg(
        **config,
        **provenance.model_dump(),
        nonlinearity=crosscoder.config.architecture,
        sae_weights_sha256=sha256_of(folder / WEIGHTS),
    )
    write_text(folder / CFG, cfg.model_dump_json(indent=1) + "\n")


def load_crosscoder(folder: Path, device: torch.device | str = "cpu") -> Crosscoder:
    """The crosscoder saved in a folder.

    Errors: XtalkError for files that are missing, cut short, corrupted, of other shapes, or not xtalk's.
    """
    cfg, path = _read_cfg(folder), folder / WEIGHTS
    with torch.device("meta"):  # no memory for sizes that the weights do not have
        crosscoder = Crosscoder(cfg.config)
    try:
        if sha256_of(path) != cfg.sae_weights_sha256:
            raise ValueError("its sha256 is not that in cfg.json")
        tensors = load_file(path)
        expected = {name: (tensor.shape, tensor.dtype) for name, tensor in crosscoder.state_dict().items()}
        found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        for name in sorted(expected | found):
            if expected.get(name) != found.get(name):
                raise ValueError(f"{name} is {_told(found.get(name))}, expected {_told(expected.get(name))}")
            if not tensors[name].isfinite().all():
                raise ValueError(f"{name} has NaN or infinity")
    except (OSError, SafetensorError, ValueError) as error:
        raise _broken(path, error) from error
    crosscoder.load_state_dict(tensors, assign=True)
    return crosscoder.to(device)


def read_provenance(folder: Path) -> Provenance:
    """Where the crosscoder saved in a folder comes from. Errors: XtalkError as `load_crosscoder`."""
    cfg = _read_cfg(folder)
    return Provenance(**{name: getattr(cfg, name) for name in Provenance.model_fields})


def check_model(folder: Path, model_name: str, weights_hash: str) -> None:
    """Errors: XtalkError where the crosscoder saved in a folder was trained on another model."""
    provenance = read_provenance(folder)
    if provenance.model_weights_hash != weights_hash:
        raise XtalkError(
            f"the crosscoder in {folder} is of the model {provenance.model_name} (weights "
            f"{provenance.model_weights_hash[:12]}); the model at hand is {model_name} (weights "
            f"{weights_hash[:12]}); load the model it was trained on"
        )


def _read_cfg(folder: Path) -> _Cfg:
    path = folder / CFG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("architecture") != "crosscoder":
            raise ValueError('its architecture is not "crosscoder"')
        return _Cfg.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise _broken(path, ValueError(reason.removeprefix("Value error, "))) from error
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> XtalkError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return XtalkError(
        f"{path} is not a crosscoder's: {reason}; save the crosscoder again, or give its folder"
    )


def _told(tensor: tuple[torch.Size, torch.dtype] | None) -> str:
    return "missing" if tensor is None else f"{tensor[1]} {tuple(tensor[0])}".removeprefix("torch.")

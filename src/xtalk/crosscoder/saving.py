"""Crosscoders on disk as xtalk keeps them: `cfg.json` and `sae_weights.safetensors`, never pickle."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, ValidationError, model_validator
from safetensors.torch import save_file
from torch import Tensor

from xtalk.crosscoder.config import Architecture, CrosscoderConfig
from xtalk.crosscoder.provenance import Provenance
from xtalk.errors import XtalkError
from xtalk.files import replacing, sha256_of, write_text

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

logger = logging.getLogger("xtalk")


class Cfg(Provenance):
    """cfg.json, in the ecosystem's keys; its `nonlinearity` is `CrosscoderConfig.architecture`.

    Keys that it does not know, such as a later xtalk may write, are left out.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format_version: Literal[1] = 1
    architecture: Literal["crosscoder"] = "crosscoder"
    nonlinearity: Architecture
    d_in: int
    d_sae: int
    k: int
    hook_names: tuple[str, ...]
    hook_names_out: tuple[str, ...] | None = None
    skip: Literal[True] | None = None
    gated: Literal[True] | None = None
    dtype: Literal["float32"] = "float32"
    sae_weights_sha256: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.config
        if self.scaling_factors is not None and len(self.scaling_factors) != len(self.hook_names):
            raise ValueError(
                f"{len(self.scaling_factors)} scaling_factors for {len(self.hook_names)} hook_names"
            )
        return self

    @property
    def config(self) -> CrosscoderConfig:
        """The crosscoder's sizes, hookpoints and nonlinearity."""
        same = ("d_in", "d_sae", "k", "hook_names", "hook_names_out")
        return CrosscoderConfig(
            **{name: getattr(self, name) for name in same},
            architecture=self.nonlinearity,
            skip=bool(self.skip),
            gated=bool(self.gated),
        )

    @property
    def provenance(self) -> Provenance:
        """Where the crosscoder comes from."""
        return Provenance(**{name: getattr(self, name) for name in Provenance.model_fields})


def write_crosscoder(
    folder: Path, config: CrosscoderConfig, tensors: Mapping[str, Tensor], provenance: Provenance
) -> None:
    """Write a crosscoder and where it comes from into a folder, cfg.json last; weights in float32.

    Errors: XtalkError for weights that are not finite, a provenance of other hookpoints, and a full disk.
    """
    whole = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    if bad := [name for name, tensor in whole.items() if not tensor.isfinite().all()]:
        raise XtalkError(
            f"{', '.join(bad)} of the crosscoder has NaN or infinity; it was not saved; train again"
        )
    try:
        cfg = _cfg(config, provenance, "")
    except ValidationError as error:
        raise XtalkError(f"the provenance: {first_reason(error)}; give that of this crosscoder") from error
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as partial:
        save_file(whole, partial)
    cfg = cfg.model_copy(update={"sae_weights_sha256": sha256_of(folder / WEIGHTS)})
    write_text(folder / CFG, cfg.model_dump_json(indent=1, exclude_none=True) + "\n")


def _cfg(config: CrosscoderConfig, provenance: Provenance, sha256: str) -> Cfg:
    return Cfg(
        **config.model_dump(exclude={"architecture", "skip", "gated"}),
        skip=config.skip or None,
        gated=config.gated or None,
        **provenance.model_dump(),
        nonlinearity=config.architecture,
        sae_weights_sha256=sha256,
    )


def read_cfg(folder: Path) -> Cfg:
    """A folder's cfg.json. Errors: XtalkError for one that is missing, broken or not xtalk's."""
    path = folder / CFG
    try:
        return Cfg.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise broken(path, ValueError(first_reason(error))) from error
    except (OSError, ValueError) as error:
        raise broken(path, error) from error


def is_xtalk(folder: Path) -> bool:
    """Whether a folder has a cfg.json of the architecture "crosscoder"."""
    try:
        content: Any = json.loads((folder / CFG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("architecture") == "crosscoder"


def read_provenance(folder: Path) -> Provenance:
    """Where the crosscoder saved in a folder comes from. Errors: XtalkError as `read_cfg`."""
    return read_cfg(folder).provenance


def check_model(folder: Path, model_name: str, weights_hash: str) -> None:
    """Errors: XtalkError where the crosscoder saved in a folder is known to be of another model.

    Where its model is unknown, a warning says so.
    """
    provenance = read_provenance(folder)
    if provenance.model_weights_hash is None:
        logger.warning(
            "%s does not say which model its crosscoder was trained on; it is read in %s", folder, model_name
        )
    elif provenance.model_weights_hash != weights_hash:
        raise XtalkError(
            f"the crosscoder in {folder} is of the model {provenance.model_name} (weights "
            f"{provenance.model_weights_hash[:12]}); the model at hand is {model_name} (weights "
            f"{weights_hash[:12]}); load the model it was trained on"
        )


def first_reason(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, with the key."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, first['loc']))}: {message}".removeprefix(": ")


def broken(path: Path, error: Exception) -> XtalkError:
    """The error to raise where a crosscoder's file cannot be used."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return XtalkError(
        f"{path} is not a crosscoder's: {reason}; save the crosscoder again, or give its folder"
    )

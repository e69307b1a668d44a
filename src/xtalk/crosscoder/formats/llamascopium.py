"""Llamascopium 2's format, of SAEs, transcoders and crosscoders: config.json and sae_weights.safetensors."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, checked, json_in, safetensors_in
from xtalk.crosscoder.formats.folding import over_norm, stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint
from xtalk.crosscoder.saving import WEIGHTS

CONFIG, _SHARDED = "config.json", "sae_weights.dcp"


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sae_type: str
    d_model: int
    act_fn: str = "relu"
    norm_activation: str = "dataset-wise"
    sparsity_include_decoder_norm: bool = True
    use_decoder_bias: bool = True
    use_glu_encoder: bool = False
    top_k: int = Field(default=50, ge=1)
    hook_points: list[str] | None = None
    hook_point_in: str | None = None
    hook_point_out: str | None = None

    @property
    def read(self) -> list[str]:
        """What is read, in the peer's names."""
        return self.hook_points or [self.hook_point_in or "hookpoint_0"]

    @property
    def written(self) -> list[str]:
        """What is written."""
        return self.hook_points or [self.hook_point_out or self.read[0]]


def _read(folder: Path) -> Stored:
    config = checked(_Config, folder / CONFIG, json_in(folder / CONFIG))
    _refuse(config, folder)
    tensors = safetensors_in(folder / WEIGHTS)
    tensors.sizes |= {"D": config.d_model, "P": len(config.read)}
    several = config.sae_type == "crosscoder"
    P = "P" if several else ""
    W_enc, b_enc = tensors.take("W_E", f"{P}DL"), tensors.take("b_E", f"{P}L")
    W_dec = tensors.take("W_D", f"{P}LD")
    b_dec = tensors.take("b_D", f"{P}D") if config.use_decoder_bias else torch.zeros_like(W_dec[..., 0, :])
    if not several:
        W_enc, b_enc, W_dec, b_dec = (tensor[None] for tensor in (W_enc, b_enc, W_dec, b_dec))
    notes = [f"a {config.sae_type} of Llamascopium, {config.act_fn}"]
    b_enc = b_enc.sum(dim=0)
    norm_QL = W_dec.norm(dim=2)
    threshold, gate = None, None
    if config.act_fn == "jumprelu":
        threshold = tensors.take("activation_function.log_jumprelu_threshold", "L").exp()
        notes.append("log_jumprelu_threshold: read as its exponential")
    if config.sparsity_include_decoder_norm and config.act_fn != "relu":
        one = bool((norm_QL == norm_QL[0]).all())
        if threshold is not None:
            gate = over_norm(threshold, norm_QL)
            threshold, gate = gate.min(dim=0).values, None if one else gate
            notes.append("activations times decoder norm are compared: folded into thresholds")
        elif one:
            W_enc, b_enc, W_dec = W_enc * norm_QL[0], b_enc * norm_QL[0], W_dec / norm_QL[0, :, None]
            notes.append("activations times decoder norm are compared: codes are the peer's times that norm")
        else:
            raise UnsupportedDictionary(
                "a crosscoder of Llamascopium with topk by hookpoint: each has k latents of its own; xtalk "
                "knows crosscoders of one code for all hookpoints; choose one with jumprelu or relu"
            )
    if gate is not None:
        notes.append("hookpoints have thresholds of their own, by their decoders' norms: read as gates")
    if config.norm_activation == "dataset-wise":
        into, back = (_factors(config, tensors, names) for names in (config.read, config.written))
        W_enc, W_dec, b_dec = W_enc * into[:, None, None], W_dec / back[:, None, None], b_dec / back[:, None]
        notes.append("activations are scaled to mean norm sqrt(d_model): folded into the weights")
    read, written = (tuple(map(hookpoint, names)) for names in (config.read, config.written))
    return stored(
        {"W_enc": W_enc, "W_dec": W_dec.transpose(0, 1), "b_enc": b_enc, "b_dec": b_dec, "gate": gate},
        threshold=threshold,
        hook_names=read,
        hook_names_out=None if written == read else written,
        architecture=config.act_fn,
        k=config.top_k if config.act_fn == "topk" else None,
        notes=(*notes, *hook_notes(*dict.fromkeys((*config.read, *config.written)))),
    )


def _refuse(config: _Config, folder: Path) -> None:
    """Errors: UnsupportedDictionary names what xtalk has no meaning for."""
    what = None
    if config.sae_type not in ("sae", "crosscoder"):
        what = f"of the type {config.sae_type!r}"
    elif config.act_fn not in ("relu", "jumprelu", "topk"):
        what = f"with {config.act_fn}, where a token's code depends on its batch"
    elif config.norm_activation in ("token-wise", "batch-wise"):
        what = f"with norm_activation {config.norm_activation!r}, which scales by the tokens themselves"
    elif config.use_glu_encoder:
        what = "with a gated linear encoder"
    elif not (folder / WEIGHTS).is_file():
        what = f"in the sharded form {_SHARDED}, which torch unpickles"
    if what is not None:
        raise UnsupportedDictionary(
            f"a dictionary of Llamascopium {what}; xtalk reads SAEs and crosscoders with relu, jumprelu "
            "and topk "
            f"from {WEIGHTS}; choose another"
        )


def _factors(config: _Config, tensors: Tensors, names: list[str]) -> Tensor:
    """By hookpoint, what its activations are multiplied with."""
    norms = torch.tensor([tensors.number(f"dataset_average_activation_norm.{name}") for name in names])
    if (norms <= 0).any():
        raise tensors.wrong("dataset_average_activation_norm is not positive")
    return config.d_model**0.5 / norms


def _detect(folder: Path) -> bool:
    there = (folder / WEIGHTS).is_file() or (folder / _SHARDED).exists()
    return there and "sae_type" in (json_in(folder / CONFIG) or {})


LLAMASCOPIUM = Format("Llamascopium", (CONFIG, WEIGHTS), _detect, _read)

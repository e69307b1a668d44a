"""SAELens' format, of version 6 and of those before: cfg.json and sae_weights.safetensors."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, checked, json_in, safetensors_in
from xtalk.crosscoder.formats.folding import gated_threshold, stored, subtracted
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint, lens_name, unnamed
from xtalk.crosscoder.formats.writing import (
    RECORD,
    Prepared,
    Writer,
    cannot_carry,
    record_of,
    restored,
    write_tensors,
)
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import CFG, WEIGHTS
from xtalk.files import write_text

_TRANSCODERS = {
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_VERSION = "6.0.0"  # the first whose keys these are; what SAELens reads files without one as is older
_KNOWN = {"standard": "relu", "gated": "jumprelu", "jumprelu": "jumprelu", "topk": "topk"} | _TRANSCODERS


class _Cfg(BaseModel):
    """The keys of version 6; those of its metadata and of earlier versions are brought here first."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    d_in: int
    d_sae: int
    architecture: str = "standard"
    activation_fn: str = "relu"
    k: int | None = Field(default=None, ge=1)
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    rescale_acts_by_decoder_norm: bool = False
    model_name: str | None = None
    hook_name: str | None = None
    hook_name_out: str | None = None
    prepend_bos: bool | None = None
    sae_lens_version: str | None = None
    xtalk: dict[str, Any] | None = None


def _brought_up(content: dict[str, Any]) -> dict[str, Any]:
    """A cfg.json of any version in the keys of `_Cfg`."""
    cfg = dict(content)
    if isinstance(metadata := cfg.pop("metadata", None), dict):
        cfg |= {name: value for name, value in metadata.items() if name not in cfg}
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        if old in cfg:
            cfg.setdefault(new, cfg[old])
    kwargs = cfg.get("activation_fn_kwargs")
    if cfg.get("activation_fn") == "topk":
        cfg["architecture"], cfg["activation_fn"] = "topk", "relu"
        if isinstance(kwargs, dict) and "k" in kwargs:
            cfg["k"] = kwargs["k"]
    if isinstance(normalize := cfg.get("normalize_activations"), bool):
        cfg["normalize_activations"] = "expected_average_only_in" if normalize else "none"
    return {name: value for name, value in cfg.items() if value is not None}


def _read(folder: Path) -> Stored:
    cfg = checked(_Cfg, folder / CFG, _brought_up(json_in(folder / CFG) or {}))
    _refuse(cfg)
    tensors = safetensors_in(folder / WEIGHTS)
    tensors.sizes |= {"D": cfg.d_in, "L": cfg.d_sae}
    W_dec, b_dec = tensors.take("W_dec", "LD"), tensors.take("b_dec", "D")
    W_enc = tensors.take("W_enc", "DL")
    threshold, notes = None, list(_notes(cfg))
    if cfg.architecture == "gated":
        r_mag, b_gate, b_enc = (tensors.take(name, "L") for name in ("r_mag", "b_gate", "b_mag"))
        threshold, W_enc = gated_threshold(r_mag, b_gate, b_enc), W_enc * r_mag.exp()
    else:
        b_enc = tensors.take("b_enc", "L")
        threshold = tensors.take("threshold", "L") if _KNOWN[cfg.architecture] == "jumprelu" else None
    if cfg.apply_b_dec_to_input and cfg.architecture not in _TRANSCODERS:
        b_enc = subtracted(W_enc[None], b_enc, b_dec[None])
    if cfg.rescale_acts_by_decoder_norm:
        norm = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm.clamp(min=1e-30)[:, None]
    W_dec = _rescaled(tensors, W_dec, notes)
    out = None
    if cfg.architecture in _TRANSCODERS:
        out = hookpoint(cfg.hook_name_out) if cfg.hook_name_out else "output"
    read = stored(
        {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "W_skip": _skip(cfg, tensors)},
        threshold=threshold,
        hook_names=hookpoint(cfg.hook_name) if cfg.hook_name else unnamed(1),
        hook_names_out=out,
        architecture=_KNOWN[cfg.architecture],
        k=cfg.k,
        provenance=Provenance(model_name=cfg.model_name),
        notes=tuple(notes),
    )
    return restored(read, cfg.xtalk, folder / CFG)


def _refuse(cfg: _Cfg) -> None:
    """Errors: UnsupportedDictionary names what xtalk has no meaning for."""
    what = None
    if cfg.architecture not in _KNOWN:
        what = f"the architecture {cfg.architecture!r}"
    elif cfg.activation_fn != "relu":
        what = f"the activation function {cfg.activation_fn!r}"
    elif cfg.normalize_activations in ("layer_norm", "constant_norm_rescale"):
        what = f"normalize_activations {cfg.normalize_activations!r}, which scales each token by its own norm"
    if what is not None:
        raise UnsupportedDictionary(
            f"an SAE of SAELens with {what}; xtalk reads {', '.join(_KNOWN)} without it; choose another SAE"
        )


def _notes(cfg: _Cfg) -> tuple[str, ...]:
    notes = [f"written by SAELens {cfg.sae_lens_version}" if cfg.sae_lens_version else "of SAELens"]
    if cfg.architecture == "gated":
        notes.append("gated, read as jumprelu with the gate as threshold: the same codes")
    if cfg.apply_b_dec_to_input and cfg.architecture not in _TRANSCODERS:
        notes.append("b_dec is subtracted from what is read: folded into b_enc")
    if cfg.normalize_activations != "none":
        notes.append(
            f"normalize_activations {cfg.normalize_activations}: SAELens scales nothing at inference, and "
            "neither does xtalk: right only where the factor was folded before the SAE was saved"
        )
    if cfg.rescale_acts_by_decoder_norm:
        notes.append("activations are times the decoder's norm: folded into the weights")
    if cfg.prepend_bos is not None:
        notes.append(f"trained {'with' if cfg.prepend_bos else 'without'} a start token")
    return (*notes, *hook_notes(*(name for name in (cfg.hook_name, cfg.hook_name_out) if name)))


def _rescaled(tensors: Tensors, W_dec: Tensor, notes: list[str]) -> Tensor:
    """The decoder times the factors by latent that some files of before version 6 have."""
    if "scaling_factor" not in tensors:
        return W_dec
    factor = tensors.take("scaling_factor", "L")
    if not torch.equal(factor, torch.ones_like(factor)):
        notes.append("scaling_factor by latent: folded into W_dec")
    return W_dec * factor[:, None]


def _skip(cfg: _Cfg, tensors: Tensors) -> Tensor | None:
    """W_skip as x reads it: SAELens stores its transpose."""
    return tensors.take("W_skip", "DD").T if "skip" in cfg.architecture else None


def _detect(folder: Path) -> bool:
    cfg = json_in(folder / CFG)
    return (
        cfg is not None
        and (folder / WEIGHTS).is_file()
        and {"d_in", "d_sae"} <= cfg.keys()
        and cfg.get("architecture") != "crosscoder"
    )


SAELENS = Format("SAELens", (CFG, WEIGHTS), _detect, _read)


def _prepared(crosscoder: Stored) -> Prepared:
    """In the keys of version 6. Errors: XtalkError for several hookpoints, gates, and topk transcoders."""
    config, tensors = crosscoder.config, crosscoder.tensors
    if len(config.hook_names) > 1 or len(config.written) > 1:
        raise cannot_carry(
            "SAELens", f"crosscoders of several hookpoints, and this has {len(config.hook_names)}"
        )
    kind = nonlinearity(config.architecture)
    by_threshold = kind.infers_by_threshold or (not kind.infers_by_k and bool(tensors["threshold"].any()))
    architecture = "topk" if kind.infers_by_k else "jumprelu" if by_threshold else "standard"
    if config.hook_names_out is not None:
        if kind.infers_by_k:
            raise cannot_carry("SAELens", "transcoders with topk")
        prefix, skip = ("jumprelu_" if by_threshold else ""), ("skip_" if config.skip else "")
        architecture = f"{prefix}{skip}transcoder"
    elif config.skip:
        raise cannot_carry("SAELens", "SAEs with a linear map beside the latents")
    if config.gated:
        raise cannot_carry("SAELens", "gates by hookpoint")
    if kind.name == "relu" and by_threshold:
        raise cannot_carry("SAELens", "relu with thresholds")
    losses = (
        ("the thresholds, which topk does not use",)
        if kind.infers_by_k and tensors["threshold"].any()
        else ()
    )
    whole = {"W_enc": tensors["W_enc"][0], "W_dec": tensors["W_dec"][:, 0], "b_enc": tensors["b_enc"]}
    whole |= {"b_dec": tensors["b_dec"][0]} | ({"threshold": tensors["threshold"]} if by_threshold else {})
    whole |= {"W_skip": tensors["W_skip"][0, :, 0].T} if config.skip else {}

    def write(folder: Path) -> None:
        write_tensors(folder / WEIGHTS, whole)
        write_text(folder / CFG, json.dumps(_cfg_of(crosscoder, architecture), indent=1) + "\n")

    return Prepared(losses, write)


def _cfg_of(crosscoder: Stored, architecture: str) -> dict[str, Any]:
    config = crosscoder.config
    metadata: dict[str, Any] = {
        "sae_lens_version": _VERSION,
        "hook_name": lens_name(config.hook_names[0]),
        "model_name": crosscoder.provenance.model_name,
        RECORD: record_of(crosscoder),
    }
    cfg: dict[str, Any] = {
        "architecture": architecture,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if architecture == "topk":
        cfg |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    if config.hook_names_out is not None:
        metadata["hook_name_out"] = lens_name(config.hook_names_out[0])
        cfg["d_out"] = config.d_in
    return {**cfg, "metadata": metadata}


SAELENS_WRITER = Writer("saelens", _prepared)

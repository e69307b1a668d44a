"""The format of science-of-finetuning's crosscoders: config.json and model.safetensors."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.formats.contents import Tensors, checked, json_in, safetensors_in
from xtalk.crosscoder.formats.folding import over_norm, stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import unnamed
from xtalk.crosscoder.formats.writing import (
    Prepared,
    Writer,
    cannot_carry,
    record_of,
    restored,
    write_tensors,
)
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.files import write_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"
NORMS = ("CROSSCODER", "SAE", "MIXED", "NONE", "DECOUPLED")  # by code_normalization_id, from 1
_EPSILON = 1e-8  # the peer's, where it undoes its scaling


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    activation_dim: int
    dict_size: int
    num_layers: int
    dict_class: str | None = None
    code_normalization: str | None = None
    code_normalization_alpha_sae: float = 1.0
    code_normalization_alpha_cc: float = 0.1
    encoder_layers: list[int] | None = None
    k: int | None = Field(default=None, ge=1)


def _read(folder: Path) -> Stored:
    config = checked(_Config, folder / CONFIG, json_in(folder / CONFIG))
    tensors = safetensors_in(folder / WEIGHTS)
    tensors.sizes |= {"D": config.activation_dim, "L": config.dict_size}
    W_enc, b_enc = tensors.take("encoder.weight", "PDL"), tensors.take("encoder.bias", "L")
    W_dec, b_dec = tensors.take("decoder.weight", "QLD"), tensors.take("decoder.bias", "QD")
    names = unnamed(len(W_dec))
    read = _read_layers(config, tensors, names)
    kind = _code_normalization(config, tensors)
    notes = [f"of crosscoder_learning, code normalization {kind}"]
    norm = _norm(kind, W_dec, config)
    threshold, gate = None, None
    if "threshold" in tensors:
        limits = tensors.take("threshold", "Q" if kind == "DECOUPLED" else "")
        if (limits < 0).any():
            raise UnsupportedDictionary(
                "a BatchTopK crosscoder whose threshold was never set: a token's code would depend on its "
                "batch; give one whose training set it"
            )
        if kind == "DECOUPLED":
            gate = over_norm(limits[:, None], norm)
            threshold = gate.min(dim=0).values
            notes.append("each hookpoint has a threshold of its own: read as gates")
        else:
            threshold = over_norm(limits, norm)
        notes.append("the threshold is compared with activation times decoder norm: folded into thresholds")
    W_enc, b_enc, W_dec, b_dec = _unscaled(tensors, (W_enc, b_enc, W_dec, b_dec), config, notes)
    whole = stored(
        {"W_enc": W_enc, "W_dec": W_dec.transpose(0, 1), "b_enc": b_enc, "b_dec": b_dec, "gate": gate},
        threshold=threshold,
        hook_names=read,
        hook_names_out=None if read == names else names,
        architecture="relu" if threshold is None else "batchtopk",
        k=int(tensors.number("k")) if "k" in tensors else config.k,
        notes=(*notes, "the peer's files do not name the models and hookpoints"),
    )
    return restored(whole, tensors.record, folder / WEIGHTS)


def _read_layers(config: _Config, tensors: Tensors, names: tuple[str, ...]) -> tuple[str, ...]:
    layers = list(range(tensors.sizes["P"])) if config.encoder_layers is None else config.encoder_layers
    if len(layers) != tensors.sizes["P"] or any(not 0 <= layer < len(names) for layer in layers):
        raise tensors.wrong(f"encoder.weight has {tensors.sizes['P']} layers, config.json {layers}")
    return tuple(names[layer] for layer in layers)


def _code_normalization(config: _Config, tensors: Tensors) -> str:
    if "code_normalization_id" in tensors:
        number = int(tensors.number("code_normalization_id"))
        if not 1 <= number <= len(NORMS):
            raise tensors.wrong(f"code_normalization_id is {number}, expected 1 to {len(NORMS)}")
        return NORMS[number - 1]
    return (config.code_normalization or "CROSSCODER").upper()


def _norm(kind: str, W_dec_QLD: Tensor, config: _Config) -> Tensor:
    """What activations are multiplied with before they are compared with the threshold; (L), or (Q, L)."""
    by_layer_QL = W_dec_QLD.norm(dim=2)
    whole_L = W_dec_QLD.transpose(0, 1).flatten(1).norm(dim=1)
    if kind == "DECOUPLED":
        return by_layer_QL
    if kind == "MIXED":
        alpha_sae, alpha_cc = config.code_normalization_alpha_sae, config.code_normalization_alpha_cc
        return alpha_sae * whole_L + alpha_cc * by_layer_QL.sum(dim=0)
    return {"CROSSCODER": by_layer_QL.sum(dim=0), "SAE": whole_L, "NONE": torch.ones_like(whole_L)}[kind]


def _unscaled(
    tensors: Tensors, weights: tuple[Tensor, ...], config: _Config, notes: list[str]
) -> tuple[Tensor, ...]:
    """The weights for activations in the model's own units: (x - mean) * scale, and back, are folded."""
    if "activation_mean" not in tensors:
        return weights
    mean_QD = tensors.take("activation_mean", "QD", finite=False)
    std_QD = tensors.take("activation_std", "QD", finite=False)
    if mean_QD.isnan().any() or std_QD.isnan().any():
        return weights  # the peer's sign for none
    W_enc_PDL, b_enc_L, W_dec_QLD, b_dec_QD = weights
    scale_Q = tensors.take("activation_global_scale", "Q")
    layers = config.encoder_layers or list(range(len(W_enc_PDL)))
    W_enc_PDL = W_enc_PDL * scale_Q[layers, None, None]
    b_enc_L = b_enc_L - torch.einsum("pd,pdl->l", mean_QD[layers], W_enc_PDL)
    back_Q = 1 / (scale_Q + _EPSILON)
    notes.append("activations are centred and scaled by hookpoint: folded into the weights")
    return W_enc_PDL, b_enc_L, W_dec_QLD * back_Q[:, None, None], b_dec_QD * back_Q[:, None] + mean_QD


def _detect(folder: Path) -> bool:
    keys = (json_in(folder / CONFIG) or {}).keys()
    return (folder / WEIGHTS).is_file() and {"activation_dim", "dict_size", "num_layers"} <= keys


CROSSCODER_LEARNING = Format("crosscoder_learning", (CONFIG, WEIGHTS), _detect, _read)


def _prepared(crosscoder: Stored) -> Prepared:
    """As a CrossCoder or a BatchTopKCrossCoder without code normalization.

    Its one threshold is for all latents: where latents have their own, each is scaled so that its threshold
    is 1, which is a loss. Errors: XtalkError for topk, transcoders, gates, and thresholds by latent that are
    not above 0.
    """
    config, tensors = crosscoder.config, dict(crosscoder.tensors)
    kind, threshold = nonlinearity(config.architecture), crosscoder.tensors["threshold"]
    for has, what in (
        (kind.infers_by_k, "topk at inference"),
        (config.hook_names_out is not None or config.skip, "transcoders of this kind"),
        (config.gated, "gates by latent and hookpoint"),
    ):
        if has:
            raise cannot_carry("crosscoder_learning", what)
    losses = []
    if kind.infers_by_threshold and not bool((threshold == threshold[0]).all()):
        if not bool((threshold > 0).all()):
            raise cannot_carry(
                "crosscoder_learning", "thresholds by latent, and some of these are not above 0"
            )
        losses.append(
            "the latents' own scale: each is divided by its threshold, so that one threshold fits all"
        )
        tensors |= {
            "W_enc": tensors["W_enc"] / threshold,
            "b_enc": tensors["b_enc"] / threshold,
            "W_dec": tensors["W_dec"] * threshold[:, None, None],
            "threshold": torch.ones_like(threshold),
        }
    elif not kind.infers_by_threshold and threshold.any():
        raise cannot_carry("crosscoder_learning", "relu with thresholds")
    whole = _state(tensors, config, kind.infers_by_threshold)

    def write(folder: Path) -> None:
        write_tensors(folder / WEIGHTS, whole, record_of(crosscoder))
        write_text(folder / CONFIG, json.dumps(_keys(config, kind.infers_by_threshold), indent=2) + "\n")

    return Prepared(tuple(losses), write)


def _state(tensors: dict[str, Tensor], config: CrosscoderConfig, by_threshold: bool) -> dict[str, Tensor]:
    """The peer's tensors; NaN is its sign for activations that are not normalised."""
    P, D = tensors["b_dec"].shape
    whole = {
        "encoder.weight": tensors["W_enc"],
        "encoder.bias": tensors["b_enc"],
        "decoder.weight": tensors["W_dec"].transpose(0, 1),
        "decoder.bias": tensors["b_dec"],
        "code_normalization_id": torch.tensor(1 + NORMS.index("NONE")),
        "activation_mean": torch.full((P, D), torch.nan),
        "activation_std": torch.full((P, D), torch.nan),
        "activation_global_scale": torch.ones(P),
        "target_rms": torch.tensor(1.0),
    }
    if by_threshold:
        whole |= {
            "threshold": tensors["threshold"][0].clone(),
            "k": torch.tensor(config.k, dtype=torch.int32),
        }
    return whole


def _keys(config: CrosscoderConfig, by_threshold: bool) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "activation_dim": config.d_in,
        "dict_size": config.d_sae,
        "num_layers": len(config.hook_names),
        "code_normalization": "NONE",
        "dict_class": "BatchTopKCrossCoder" if by_threshold else "CrossCoder",
        "target_rms": 1.0,
    }
    return keys | ({"k": config.k} if by_threshold else {})


CROSSCODER_LEARNING_WRITER = Writer("crosscoder_learning", _prepared)

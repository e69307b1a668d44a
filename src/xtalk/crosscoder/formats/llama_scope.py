"""Llama Scope 1: hyperparams.json and checkpoints/final.safetensors."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from xtalk.crosscoder.formats.contents import checked, json_in, safetensors_in
from xtalk.crosscoder.formats.folding import over_norm, stored
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    d_model: int
    d_sae: int
    hook_point_in: str
    hook_point_out: str
    act_fn: str = "jumprelu"
    jump_relu_threshold: float = 0.0
    norm_activation: str = "dataset-wise"
    sparsity_include_decoder_norm: bool = False
    apply_decoder_bias_to_pre_encoder: bool = False
    use_glu_encoder: bool = False
    top_k: int = Field(default=50, ge=1)
    dataset_average_activation_norm: dict[str, float] | None = None


def _read(folder: Path) -> Stored:
    config = checked(_Config, folder / CONFIG, json_in(folder / CONFIG))
    _refuse(config)
    tensors = safetensors_in(folder / WEIGHTS)
    tensors.sizes |= {"D": config.d_model, "L": config.d_sae}
    W_enc, b_enc = tensors.take("encoder.weight", "LD").T, tensors.take("encoder.bias", "L")
    W_dec, b_dec = tensors.take("decoder.weight", "DL").T, tensors.take("decoder.bias", "D")
    notes = ["of Llama Scope 1"]
    threshold = None
    if config.act_fn == "jumprelu":
        threshold = W_enc.new_full((config.d_sae,), config.jump_relu_threshold)
        if config.sparsity_include_decoder_norm:
            threshold = over_norm(threshold, W_dec.norm(dim=1))
            notes.append("activations times decoder norm are compared: folded into thresholds")
    elif config.sparsity_include_decoder_norm and config.act_fn == "topk":
        norm = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm[:, None]
        notes.append("activations times decoder norm are compared: codes are the peer's times that norm")
    if config.norm_activation == "dataset-wise":
        norms = config.dataset_average_activation_norm or {}
        if min(norms.get("in", 0.0), norms.get("out", 0.0)) <= 0:
            raise tensors.wrong(f"{CONFIG} has no dataset_average_activation_norm in and out above 0")
        root = config.d_model**0.5
        into, back = root / norms["in"], norms["out"] / root
        W_enc, W_dec, b_dec = W_enc * into, W_dec * back, b_dec * back
        notes.append("activations are scaled to mean norm sqrt(d_model): folded into the weights")
    read, written = hookpoint(config.hook_point_in), hookpoint(config.hook_point_out)
    return stored(
        {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec},
        threshold=threshold,
        hook_names=read,
        hook_names_out=None if written == read else written,
        architecture=config.act_fn,
        k=config.top_k if config.act_fn == "topk" else None,
        notes=(*notes, *hook_notes(*dict.fromkeys((config.hook_point_in, config.hook_point_out)))),
    )


def _refuse(config: _Config) -> None:
    """Errors: UnsupportedDictionary names what xtalk has no meaning for."""
    what = None
    if config.act_fn not in ("relu", "jumprelu", "topk"):
        what = f"with {config.act_fn}"
    elif config.norm_activation in ("token-wise", "batch-wise"):
        what = f"with norm_activation {config.norm_activation!r}, which scales by the tokens themselves"
    elif config.use_glu_encoder:
        what = "with a gated linear encoder"
    elif config.apply_decoder_bias_to_pre_encoder:
        what = "that subtracts its decoder's bias before it encodes"
    if what is not None:
        raise UnsupportedDictionary(
            f"an SAE of Llama Scope {what}; xtalk reads relu, jumprelu and topk without it; choose another"
        )


def _detect(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


LLAMA_SCOPE = Format("Llama Scope 1", (CONFIG, WEIGHTS), _detect, _read)

"""dictionary_learning's format: ae.pt, of torch.save, and config.json with the keys trainer and buffer."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from xtalk.crosscoder.formats.contents import Tensors, checked, json_in, torch_in
from xtalk.crosscoder.formats.folding import gated_threshold, stored, subtracted
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hookpoint, unnamed
from xtalk.crosscoder.provenance import Provenance

CONFIG, WEIGHTS = "config.json", "ae.pt"
_BATCHTOPK = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")


class _Trainer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    dict_class: str
    k: int | None = Field(default=None, ge=1)
    layer: int | None = None
    lm_name: str | None = None
    submodule_name: str | None = None
    seed: int | None = None


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    trainer: _Trainer


def _read(folder: Path) -> Stored:
    trainer = checked(_Config, folder / CONFIG, json_in(folder / CONFIG)).trainer
    tensors = torch_in(folder / WEIGHTS)
    W_enc, W_dec = _either(tensors, "W_enc", "encoder.weight"), _either(tensors, "W_dec", "decoder.weight")
    bias = next(
        (name for name in ("b_dec", "decoder_bias", "bias", "decoder.bias") if name in tensors), "b_dec"
    )
    b_dec = tensors.take(bias, "D")
    kind, notes = trainer.dict_class, [f"a {trainer.dict_class} of dictionary_learning"]
    threshold, architecture, subtracts = None, "relu", kind not in ("JumpReluAutoEncoder", "AutoEncoderNew")
    if kind == "GatedAutoEncoder":
        r_mag, b_gate, b_enc = (tensors.take(name, "L") for name in ("r_mag", "gate_bias", "mag_bias"))
        threshold, architecture = gated_threshold(r_mag, b_gate, b_enc), "jumprelu"
        W_enc = W_enc * r_mag.exp()
        notes.append("gated, read as jumprelu with the gate as threshold: the same codes")
    else:
        b_enc = tensors.take("b_enc" if "b_enc" in tensors else "encoder.bias", "L")
    if kind == "JumpReluAutoEncoder":
        threshold, architecture = tensors.take("threshold", "L"), "jumprelu"
    elif kind == "AutoEncoderTopK":
        architecture = "topk"
        trainer = trainer.model_copy(update={"k": int(tensors.number("k"))}) if "k" in tensors else trainer
    elif kind in _BATCHTOPK:
        threshold, architecture = _calibrated(tensors), "batchtopk"
    elif kind not in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder"):
        raise UnsupportedDictionary(
            f"a {kind} of dictionary_learning; xtalk reads AutoEncoder, AutoEncoderNew, GatedAutoEncoder, "
            f"JumpReluAutoEncoder, AutoEncoderTopK, {' and '.join(_BATCHTOPK)}; choose another"
        )
    if subtracts:
        b_enc = subtracted(W_enc[None], b_enc, b_dec[None])
        notes.append("b_dec is subtracted from what is read: folded into b_enc")
    return stored(
        {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec},
        threshold=threshold,
        hook_names=_hook(trainer),
        architecture=architecture,
        k=trainer.k,
        provenance=Provenance(model_name=trainer.lm_name, seed=trainer.seed),
        notes=tuple(notes),
    )


def _either(tensors: Tensors, name: str, linear: str) -> Tensor:
    """A weight as x reads it, or the transpose that torch's linear layers keep."""
    axes = "DL" if name == "W_enc" else "LD"
    return tensors.take(name, axes) if name in tensors else tensors.take(linear, axes[::-1]).T


def _calibrated(tensors: Tensors) -> float:
    """BatchTopK's threshold, which is -1 until training sets it."""
    threshold = tensors.number("threshold")
    if threshold < 0:
        raise UnsupportedDictionary(
            "a BatchTopK SAE whose threshold was never set: a token's code would depend on its batch; give "
            "one whose training set it"
        )
    return threshold


def _hook(trainer: _Trainer) -> tuple[str, ...]:
    if trainer.submodule_name and not trainer.submodule_name.startswith("resid_"):
        return (trainer.submodule_name,)
    return unnamed(1) if trainer.layer is None else (hookpoint(f"blocks.{trainer.layer}.hook_resid_post"),)


def _detect(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and "trainer" in (json_in(folder / CONFIG) or {})


DICTIONARY_LEARNING = Format("dictionary_learning", (WEIGHTS, CONFIG), _detect, _read)

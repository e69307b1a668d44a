"""sparsify's format, and clt-training's of one layer: cfg.json and sae.safetensors."""

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from xtalk.crosscoder.formats.contents import Tensors, checked, json_in, safetensors_in
from xtalk.crosscoder.formats.folding import stored, subtracted
from xtalk.crosscoder.formats.format import Format, Stored, UnsupportedDictionary
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import CFG

WEIGHTS = "sae.safetensors"


class _Cfg(BaseModel):
    model_config = ConfigDict(extra="ignore")

    d_in: int
    k: int = Field(ge=1)
    activation: str = "topk"
    signed: bool = False
    transcode: bool = False
    skip_connection: bool = False
    normalize_io: bool = False
    n_targets: int = 0
    n_sources: int = 0
    coalesce_topk: str = "none"
    post_encoder_scale: bool = False


def _read(folder: Path) -> Stored:
    cfg = checked(_Cfg, folder / CFG, json_in(folder / CFG))
    tensors = safetensors_in(folder / WEIGHTS)
    _refuse(cfg, tensors)
    tensors.sizes["D"] = cfg.d_in
    W_enc = tensors.take("encoder.weight", "LD").T
    b_enc, b_dec = tensors.take("encoder.bias", "L"), tensors.take("b_dec", "D")
    W_dec = tensors.take("W_dec", "LD")
    W_skip = tensors.take("W_skip", "DD").T if cfg.skip_connection else None
    notes = ["of sparsify"]
    if not cfg.transcode:
        b_enc = subtracted(W_enc[None], b_enc, b_dec[None])
        notes.append("b_dec is subtracted from what is read: folded into b_enc")
    if cfg.normalize_io:
        root = cfg.d_in**0.5
        into, back = root / tensors.take("in_norm", "1").item(), tensors.take("out_norm", "1").item() / root
        W_enc, W_dec, b_dec = W_enc * into, W_dec * back, b_dec * back
        W_skip = None if W_skip is None else W_skip * into * back
        notes.append("what is read and written is scaled to norm sqrt(d_in): folded into the weights")
    read, written = _hooks(folder, cfg)
    return stored(
        {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "W_skip": W_skip},
        hook_names=hookpoint(read),
        hook_names_out=hookpoint(written) if written else None,
        architecture="topk",
        k=cfg.k,
        provenance=_provenance(folder),
        notes=(*notes, *hook_notes(read)),
    )


def _refuse(cfg: _Cfg, tensors: Tensors) -> None:
    """Errors: UnsupportedDictionary names what xtalk has no meaning for."""
    what = None
    if cfg.activation != "topk" or cfg.signed:
        what = f"the activation {'signed topk' if cfg.signed else cfg.activation!r}"
    elif cfg.n_targets or cfg.n_sources or cfg.coalesce_topk != "none":
        what = "several targets, a part of a cross-layer transcoder"
    elif cfg.post_encoder_scale or ("post_enc" in tensors and tensors.take("post_enc", "L").any()):
        what = "a shift of the active codes, post_enc"
    if what is not None:
        raise UnsupportedDictionary(
            f"a dictionary of sparsify or clt-training with {what}; xtalk reads topk of one target; choose "
            "another"
        )


def _hooks(folder: Path, cfg: _Cfg) -> tuple[str, str | None]:
    """What is read and what else is written, by the folder's name: the module whose output it is of."""
    name = folder.absolute().name
    if not cfg.transcode:
        return name, None
    block = re.search(r"(?:layers|h)[._](\d+)\.mlp$", name)
    return (f"blocks.{block[1]}.mlp.hook_in" if block else f"{name}.input"), f"{name}.output"


def _provenance(folder: Path) -> Provenance:
    model = (json_in(folder.parent / "config.json") or {}).get("model")
    return Provenance(model_name=model if isinstance(model, str) else None)


def _detect(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and {"d_in", "k"} <= (json_in(folder / CFG) or {}).keys()


SPARSIFY = Format("sparsify", (CFG, WEIGHTS), _detect, _read)

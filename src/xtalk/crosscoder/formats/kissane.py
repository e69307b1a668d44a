"""The format of Kissane et al.'s model-diffing crosscoders: cfg.json and cc_weights.pt, of torch.save."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from xtalk.crosscoder.formats.contents import checked, json_in, torch_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored
from xtalk.crosscoder.formats.hooks import hookpoint
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import CFG

WEIGHTS = "cc_weights.pt"


class _Cfg(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    d_in: int
    dict_size: int
    hook_point: str | None = None
    model_name: str | None = None
    seed: int | None = None


def _read(folder: Path) -> Stored:
    cfg = checked(_Cfg, folder / CFG, json_in(folder / CFG))
    tensors = torch_in(folder / WEIGHTS)
    tensors.sizes |= {"D": cfg.d_in, "L": cfg.dict_size}
    W_enc = tensors.take("W_enc", "PDL")
    place = hookpoint(cfg.hook_point or "hookpoint")
    return stored(
        {
            "W_enc": W_enc,
            "W_dec": tensors.take("W_dec", "LPD"),
            "b_enc": tensors.take("b_enc", "L"),
            "b_dec": tensors.take("b_dec", "PD"),
        },
        hook_names=tuple(f"model_{p}/{place}" for p in range(len(W_enc))),
        architecture="relu",
        provenance=Provenance(model_name=cfg.model_name, seed=cfg.seed),
        notes=(
            "a crosscoder of several models at one place, in the order of its training",
            "activations were scaled by a factor for each model, which the files do not have: scale them, "
            "or fold the factors",
        ),
    )


def _detect(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and (folder / CFG).is_file()


KISSANE = Format("Kissane", (CFG, WEIGHTS), _detect, _read)

"""Gemma Scope 1: params.npz alone; what it is of is in the names of the folders above."""

import re
from pathlib import Path

from xtalk.crosscoder.formats.contents import npz_in
from xtalk.crosscoder.formats.folding import stored
from xtalk.crosscoder.formats.format import Format, Stored
from xtalk.crosscoder.formats.hooks import hook_notes, hookpoint, unnamed
from xtalk.crosscoder.provenance import Provenance

PARAMS = "params.npz"
_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


def _read(folder: Path) -> Stored:
    tensors = npz_in(folder / PARAMS)
    lower = {"W_enc": "w_enc", "W_dec": "w_dec"}
    names = {name: name if name in tensors else lower[name] for name in lower}
    W_enc, W_dec = tensors.take(names["W_enc"], "DL"), tensors.take(names["W_dec"], "LD")
    words = _words(folder)
    notes = ["of Gemma Scope 1: b_dec is not subtracted from what is read"]
    if "embedding" in words:  # it was trained on embeddings times sqrt(D)
        root = tensors.sizes["D"] ** 0.5
        W_enc, W_dec = W_enc / root, W_dec * root
        notes.append("of embeddings: sqrt(d_in) is folded into the weights, as SAELens does it")
    read, written = _hooks(words)
    notes += hook_notes(*read, *written)
    return stored(
        {
            "W_enc": W_enc,
            "W_dec": W_dec,
            "b_enc": tensors.take("b_enc", "L"),
            "b_dec": tensors.take("b_dec", "D"),
        },
        threshold=tensors.take("threshold", "L"),
        hook_names=tuple(map(hookpoint, read)) or unnamed(1),
        hook_names_out=tuple(map(hookpoint, written)) or None,
        architecture="jumprelu",
        provenance=Provenance(model_name=_model(words)),
        notes=tuple(notes),
    )


def _words(folder: Path) -> str:
    """The names of the release's own folders: from the repository's on, or else the last three."""
    parts = [part.lower() for part in folder.absolute().parts]
    first = next((n for n, part in enumerate(parts) if "gemma-scope" in part), len(parts) - 3)
    return "/".join(parts[max(first, 0) :])


def _hooks(words: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is read, and what else is written, by the folders' names; empty where those do not say."""
    if "embedding" in words:
        return ("hook_embed",), ()
    layer, site = re.search(r"layer_(\d+)", words), re.search(r"-(res|mlp|att|transcoders)\b", words)
    if layer is None or site is None:
        return (), ()
    block = f"blocks.{layer[1]}"
    if site[1] == "transcoders":
        return (f"{block}.mlp.hook_in",), (f"{block}.hook_mlp_out",)
    return (f"{block}.{_SITES[site[1]]}",), ()


def _model(words: str) -> str | None:
    match = re.search(r"gemma-scope-(\d+b)-(pt|it)", words)
    return f"google/gemma-2-{match[1]}{'-it' if match[2] == 'it' else ''}" if match else None


def _detect(folder: Path) -> bool:
    return (folder / PARAMS).is_file()


GEMMA_SCOPE = Format("Gemma Scope 1", (PARAMS,), _detect, _read)

"""Peers read what `xtalk convert` wrote: their own forward gives what xtalk's gave. Arguments: FOLDER ..."""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def forward(folder: Path, x: torch.Tensor) -> torch.Tensor:
    if (folder / "model_cfg.yaml").is_file():
        from model_diffing.models.crosscoder import AcausalCrosscoder

        return AcausalCrosscoder.load(folder)(x)
    if (folder / "model.safetensors").is_file():
        import json

        from dictionary_learning import dictionary

        kind = getattr(dictionary, json.loads((folder / "config.json").read_text())["dict_class"])
        return kind.from_pretrained(str(folder), from_hub=True)(x)
    from sae_lens import SAE

    return SAE.load_from_disk(folder)(x)


for folder in map(Path, sys.argv[1:]):
    values = load_file(folder / "expected.safetensors")
    worst = float((forward(folder, values["x"]) - values["y"]).abs().max())
    print(f"{folder}: largest difference {worst:.2g}")
    if not worst < 1e-4:
        raise SystemExit(f"{folder}: a peer's forward differs by {worst}")

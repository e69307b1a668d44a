"""Crosscoders of ours in peers' formats, with what our forward gives; run by xtalk's own Python."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from xtalk.crosscoder.conversion import convert
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.formats.registry import read_folder

ROOT, D, L = Path(sys.argv[1]), 5, 12
generator = torch.Generator().manual_seed(7)


def crosscoder(hooks: int, architecture: str, threshold) -> Crosscoder:
    shapes = {"W_enc": (hooks, D, L), "W_dec": (L, hooks, D), "b_enc": (L,), "b_dec": (hooks, D)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    names = [f"blocks.{b}.resid_post" for b in range(hooks)]
    return Crosscoder.from_tensors(
        **drawn, hook_names=names, architecture=architecture, k=3, threshold=threshold
    )


by_latent = torch.rand(L, generator=generator)
for to, hooks, architecture, threshold in (
    ("saelens", 1, "relu", None),
    ("saelens", 1, "topk", None),
    ("saelens", 1, "jumprelu", by_latent),
    ("saelens", 1, "batchtopk", 0.5),
    ("crosscoder_learning", 3, "relu", None),
    ("crosscoder_learning", 3, "batchtopk", 0.5),
    ("crosscoder_learning", 3, "jumprelu", by_latent),
    ("paper", 3, "relu", None),
    ("paper", 3, "jumprelu", by_latent),
):
    cc, folder = crosscoder(hooks, architecture, threshold), ROOT / to / architecture
    cc.save(folder / "ours")
    convert(read_folder(folder / "ours"), folder / "theirs", to, lossy=True)
    x = torch.randn(24, *(() if hooks == 1 and to == "saelens" else (hooks,)), D, generator=generator)
    save_file({"x": x, "y": cc(x).detach()}, folder / "theirs" / "expected.safetensors")
    print(folder / "theirs")

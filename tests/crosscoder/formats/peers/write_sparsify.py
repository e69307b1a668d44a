"""Sparse coders of sparsify (eai-sparsify), saved and run by it."""

import os
from importlib.metadata import version

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

import json

from sparsify.config import SparseCoderConfig
from sparsify.sparse_coder import SparseCoder
from writing import D, L, draw, expect, inputs, out


def write(name: str, **how) -> None:
    coder = SparseCoder(D, SparseCoderConfig(num_latents=L, k=3, **how))
    draw(coder)
    folder = out(f"sparsify/{name}")
    coder.save_to_disk(folder)
    (folder.parent / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-70m"}))
    x = inputs(D)
    expect(
        folder, f"sparsify {version('eai-sparsify')}", x=x, y=SparseCoder.load_from_disk(folder)(x).sae_out
    )


write("layers.1")
write("layers.2.mlp", transcode=True)
write("layers.3.mlp", transcode=True, skip_connection=True)

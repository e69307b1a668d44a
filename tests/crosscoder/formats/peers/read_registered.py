"""SAELens reads what `Crosscoder.save` wrote, once our class is registered. Arguments: FOLDER ..."""

import sys
from pathlib import Path

import torch
from sae_lens import SAE
from safetensors.torch import load_file

from xtalk.crosscoder import saelens
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError

saelens.register()
saelens.register()  # a second time is none


def refused(what, *arguments) -> None:
    try:
        what(*arguments)
    except XtalkError as error:
        print(f"refused: {error}")
    else:
        raise SystemExit(f"{what} was not refused for {arguments}")


for folder in map(Path, sys.argv[1:]):
    values = load_file(folder / "theirs/expected.safetensors")
    own = Crosscoder.load(folder / "ours")
    if len(own.config.hook_names) > 1:
        refused(SAE.load_from_disk, folder / "ours")
        continue
    sae = SAE.load_from_disk(folder / "ours")
    assert type(sae).__name__ == "CrosscoderSAE", type(sae)
    assert sae.cfg.metadata.hook_name == "blocks.0.hook_resid_post", sae.cfg.metadata
    x = values["x"].view(2, 12, -1)
    assert torch.equal(sae.encode(x), own.encode(x)), folder
    worst = float((sae(x) - own(x)).abs().max())
    print(f"{folder}: largest difference {worst:.2g}")
    if not worst < 1e-4:
        raise SystemExit(f"{folder}: SAELens' forward differs by {worst}")
    refused(sae.save_model, folder / "again")
    if own.config.architecture == "topk":
        refused(sae.fold_W_dec_norm)
    else:
        sae.fold_W_dec_norm()
        torch.testing.assert_close(sae(x), own(x), rtol=1e-4, atol=1e-4)

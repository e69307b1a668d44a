"""What crosslayer-transcoder makes of its own toy weights; a checkout of 88aa671 is on PYTHONPATH."""

import importlib.util
import shutil
import sys
import types
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from writing import TOKENS, expect, out

ROOT = Path(importlib.util.find_spec("crosslayer_transcoder").origin).parents[1]
for name in ("", ".model"):  # the packages without their __init__, which import trainers and data bases
    package = types.ModuleType(f"crosslayer_transcoder{name}")
    package.__path__ = [str(ROOT / "crosslayer_transcoder" / name.strip("."))]
    sys.modules[package.__name__] = package

from crosslayer_transcoder.model.clt import CrosslayerDecoder, Decoder, Encoder  # noqa: E402
from crosslayer_transcoder.model.jumprelu import JumpReLU  # noqa: E402


def write(name: str) -> None:
    source, folder = ROOT / "weights" / name, out(f"crosslayer_transcoder/{name}")
    for file in ("config.yaml", "checkpoint.safetensors"):
        shutil.copy(source / file, folder / file)
    parts = yaml.safe_load((source / "config.yaml").read_text())["model"]["init_args"]
    crosslayer = parts["decoder"]["class_path"].endswith("CrosslayerDecoder")
    modules = {
        "encoder": Encoder(**parts["encoder"]["init_args"]),
        "decoder": (CrosslayerDecoder if crosslayer else Decoder)(**parts["decoder"]["init_args"]),
        "nonlinearity": JumpReLU(**parts["nonlinearity"]["init_args"]),
    }
    state = load_file(source / "checkpoint.safetensors")
    for prefix, module in modules.items():
        module.load_state_dict(
            {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")}
        )
    layers, width = modules["encoder"].n_layers, modules["encoder"].d_acts
    x = torch.randn(TOKENS, layers, width, generator=torch.Generator().manual_seed(1))
    f = modules["nonlinearity"](modules["encoder"](x))
    expect(folder, "crosslayer-transcoder 88aa671", x=x, y=modules["decoder"](f), f=f.flatten(1))


for name in sys.argv[2:] or ("jumprelu-clt-toy-L0=1", "jumprelu-plt-toy-L0=1"):
    write(name)

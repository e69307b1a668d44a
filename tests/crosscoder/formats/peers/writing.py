"""What the scripts beside this one share: weights by seed, and the file of what a peer's forward gives."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

FILES = Path(__file__).parents[1] / "files"
D, L, TOKENS = 5, 12, 24


def out(name: str) -> Path:
    """The folder for a case: under the folder that the command line gives, or the committed one."""
    folder = (Path(sys.argv[1]) if len(sys.argv) > 1 else FILES) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def draw(module: torch.nn.Module, seed: int = 0) -> None:
    """Give all parameters random values of order 1, thresholds positive ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if "threshold" in name:
                parameter.copy_(parameter.abs())


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(TOKENS, *shape, generator=torch.Generator().manual_seed(1))


def expect(folder: Path, peer: str, **tensors: torch.Tensor) -> None:
    """Write what the peer's own forward gives: x read, y written, f the codes where they are ours too."""
    whole = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "expected.safetensors", {"peer": peer})

"""What a training step is measured on: the same numbers in every process, whatever is installed there."""

from dataclasses import dataclass

import torch
from torch import Tensor

BATCHES = 3  # that steps go round in


@dataclass(frozen=True)
class Shape:
    """Tokens a step, hookpoints, their width, latents, active latents; and how many steps are timed."""

    B: int
    P: int
    D: int
    L: int
    K: int
    steps: int


def one_hookpoint(latents: int, k: int = 32, steps: int = 8) -> Shape:
    """The dictionaries of other packages: one hookpoint of 768 numbers, 1,024 tokens a step."""
    return Shape(1024, 1, 768, latents, k, steps)


SHAPES = {
    "paper": Shape(256, 17, 768, 1536, 20, 4),
    "wide": Shape(256, 17, 768, 16384, 20, 1),
    "4096": one_hookpoint(4096),
    "16384": one_hookpoint(16384, steps=4),
    "demo": Shape(512, 17, 128, 1024, 32, 8),
}
SMALL = Shape(64, 5, 24, 96, 5, 2)
SMALL_ONE = Shape(64, 1, 24, 96, 5, 2)


def shape_of(name: str, *, small: bool) -> Shape:
    """The shape of that name, or a tiny one that is like it."""
    shape = SHAPES[name]
    return (SMALL_ONE if shape.P == 1 else SMALL) if small else shape


def directions(shape: Shape) -> Tensor:
    """(L, P, D): decoder directions of norm 1, random; the encoder is their transpose, biases are 0."""
    generator = torch.Generator().manual_seed(0)
    direction_LPD = torch.randn(shape.L, shape.P, shape.D, generator=generator)
    return direction_LPD / direction_LPD.flatten(1).norm(dim=1)[:, None, None]


def activations(shape: Shape) -> Tensor:
    """(batches, B, P, D): random activations of the scale that training gives them."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCHES, shape.B, shape.P, shape.D, generator=generator)

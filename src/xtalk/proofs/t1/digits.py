"""The digits data set that ships with scikit-learn: 1,797 images of 8 x 8 pixels, grey levels 0 to 16."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.files import replacing
from xtalk.progress import Report, silent
from xtalk.proofs.t1.network import FiniteNetwork, FiniteSizes
from xtalk.proofs.t1.training import FiniteTraining, align_neurons, axes_crosscoder, train_finite

SIDE, LEVELS, HELD_OUT = 8, 16, 449
SHIPPED = Path(__file__).parent / "digits.safetensors"
SIZES = FiniteSizes(inputs=64, classes=10, d_model=24, neurons=192)
"""Of the digits network that ships."""


@dataclass(frozen=True)
class Split:
    """Images, one row of pixels in [0, 1] each, and their digits; `train` and `test` share none."""

    train_RI: Float[Tensor, "R I"]
    train_labels_R: Int[Tensor, "R"]
    test_TI: Float[Tensor, "T I"]
    test_labels_T: Int[Tensor, "T"]


def digits(seed: int) -> Split:
    """The digits with 449 images (a quarter) held out, which a seeded shuffle chooses."""
    images, targets = load_digits(return_X_y=True)
    pixels = torch.tensor(np.asarray(images) / LEVELS, dtype=torch.float32)
    labels = torch.tensor(np.asarray(targets))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return Split(pixels[train], labels[train], pixels[test], labels[test])


def shifted_and_noisy(z_BI: Float[Tensor, "B I"], generator: torch.Generator) -> Float[Tensor, "B I"]:
    """Images with noise of 0.15, some (15 %) of them moved by up to a pixel along each axis."""
    B = len(z_BI)
    padded = F.pad(z_BI.view(B, SIDE, SIDE), (1, 1, 1, 1))
    moves_B = torch.rand(B, generator=generator) < 0.15

    def offset() -> Tensor:
        return torch.where(moves_B, torch.randint(0, 3, (B,), generator=generator), 1)

    side = torch.arange(SIDE)
    down_BS1 = (offset()[:, None] + side)[:, :, None]
    right_B1S = (offset()[:, None] + side)[:, None, :]
    moved = padded[torch.arange(B)[:, None, None], down_BS1, right_B1S].reshape(B, -1)
    return moved + 0.15 * torch.randn(moved.shape, generator=generator)


def train_digits(
    seed: int, *, post_hoc: bool, steps: int = FiniteTraining.steps, progress: Report = silent
) -> tuple[FiniteNetwork, Crosscoder]:
    """A digits network and its crosscoder, with theorem T1's bound in the loss of both.

    post_hoc: the network learns the task alone, and then the crosscoder alone learns on the bound. Two
    minutes on one core at the default steps; what ships is seed 0's.
    """
    data = digits(seed)
    training = FiniteTraining(steps=steps, seed=seed)
    if post_hoc:
        alone = replace(training, bound=0.0)
        network, crosscoder = train_ordinary_digits(data, alone, progress=progress)
        what = "train the crosscoder"
    else:
        generator = torch.Generator().manual_seed(seed)
        network, crosscoder = _untrained(SIZES, generator)
        align_neurons(network, crosscoder, generator)
        what = "train network and crosscoder"
    train_finite(
        network,
        crosscoder,
        data.train_RI,
        data.train_labels_R,
        training,
        shifted_and_noisy,
        frozen=post_hoc,
        progress=partial(progress, what),
    )
    return network, crosscoder


def train_ordinary_digits(
    data: Split,
    training: FiniteTraining,
    *,
    sizes: FiniteSizes = SIZES,
    progress: Report = silent,
) -> tuple[FiniteNetwork, Crosscoder]:
    """A digits network trained for the task alone where `training.bound` is 0, and a crosscoder beside it."""
    network, crosscoder = _untrained(sizes, torch.Generator().manual_seed(training.seed))
    train_finite(
        network,
        crosscoder,
        data.train_RI,
        data.train_labels_R,
        training,
        shifted_and_noisy,
        progress=partial(progress, "train the network"),
    )
    return network.requires_grad_(False), crosscoder


def _untrained(sizes: FiniteSizes, generator: torch.Generator) -> tuple[FiniteNetwork, Crosscoder]:
    network = FiniteNetwork(sizes, generator)
    return network, axes_crosscoder(sizes.d_model, sizes.d_model, generator)


def save_digits(path: Path, network: FiniteNetwork, crosscoder: Crosscoder) -> None:
    """Write a digits network and its crosscoder into one safetensors file."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"crosscoder.{name}": tensor for name, tensor in crosscoder.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial, {"k": str(crosscoder.config.k)})


def load_digits_network(path: Path = SHIPPED) -> tuple[FiniteNetwork, Crosscoder]:
    """The digits network and its crosscoder from a file; the one that ships has seed 0."""
    with safe_open(path, framework="pt") as file:
        k = int(file.metadata()["k"])
    tensors = load_file(path)
    parts = {
        part: {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
        for part in ("network.", "crosscoder.")
    }
    inputs, d_model = parts["network."]["embed"].shape
    neurons, classes = len(parts["network."]["b_in"]), len(parts["network."]["b_unembed"])
    generator = torch.Generator()
    network = FiniteNetwork(FiniteSizes(inputs, classes, d_model, neurons), generator)
    crosscoder = axes_crosscoder(d_model, k, generator)
    network.load_state_dict(parts["network."])
    crosscoder.load_state_dict(parts["crosscoder."])
    return network, crosscoder

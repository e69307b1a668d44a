"""Activations of a network on a product space, for crosscoders to train on."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations import SourceIdentity
from xtalk.data.tokens import token_sequences
from xtalk.proofs.t3.network import Network
from xtalk.proofs.t3.tasks import ProductTask


class NetworkActivations:
    """Activations of a network on random sequences of its task, one row per sequence."""

    def __init__(self, network: Network, task: ProductTask, rows: int, seed: int) -> None:
        self._network = network
        self._tokens_Rn = task.sample(rows, torch.Generator().manual_seed(seed))
        numbers = np.arange(rows, dtype=np.int32)[:, None]
        self.sequences = token_sequences(numbers, numbers)
        digest = hashlib.sha256(self._tokens_Rn.numpy().astype("<i4").tobytes()).hexdigest()
        self.identity = SourceIdentity(weights_hash(network), digest, network.hook_names)
        self.d_model = network.d_model

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Activations of the sequences `rows`, in that order."""
        with torch.no_grad():
            x_BPD = self._network.activations(self._tokens_Rn[torch.from_numpy(rows)])
        yield x_BPD[:, None]


def weights_hash(network: Network) -> str:
    """The sha256 of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()

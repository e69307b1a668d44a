"""From a crosscoder on a small network to the groups of tokens that a certificate treats alike."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations import SourceIdentity
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data.tokens import token_sequences
from xtalk.proofs.t3.attention_network import AttentionNetwork
from xtalk.proofs.t3.bound import Columns
from xtalk.proofs.t3.sum_network import SumNetwork
from xtalk.proofs.t3.tasks import ProductTask


class NetworkActivations:
    """Activations of a network on random sequences of its task, one row per sequence."""

    def __init__(
        self, network: SumNetwork | AttentionNetwork, task: ProductTask, rows: int, seed: int
    ) -> None:
        self._network = network
        self._tokens_Rn = task.sample(rows, torch.Generator().manual_seed(seed))
        numbers = np.arange(rows, dtype=np.int32)[:, None]
        self.sequences = token_sequences(numbers, numbers)
        digest = hashlib.sha256(self._tokens_Rn.numpy().astype("<i4").tobytes()).hexdigest()
        self.identity = SourceIdentity(weights_hash(network), digest, network.hook_names)
        self.d_model = network.sizes.d_model

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Activations of the sequences `rows`, in that order."""
        with torch.no_grad():
            x_BPD = self._network.activations(self._tokens_Rn[torch.from_numpy(rows)])
        yield x_BPD[:, None]


def weights_hash(network: SumNetwork | AttentionNetwork) -> str:
    """The sha256 of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Dictionary:
    """The feature of each token, and the columns they make: tokens of one feature and of one class.

    A feature that stands for tokens of several classes is split, so that any crosscoder gives a sound
    partition; a good one gives no more columns than features.
    """

    feature_of_token: tuple[int, ...]
    columns: Columns

    @property
    def features(self) -> int:
        """How many features stand for a token."""
        return len(set(self.feature_of_token))


@torch.no_grad()
def read_dictionary(crosscoder: Crosscoder, network: SumNetwork, task: ProductTask) -> Dictionary:
    """The feature that each token brings in most strongly, when it stands among average others.

    Strength is the pre-activation times the norm of the feature's direction at the MLP's input.
    """
    groups = _groups(task)
    mean_GD = torch.stack([network.embed[group].mean(0) for group in groups])
    positions = 1 if len(groups) > 1 else task.n
    average_D = mean_GD.sum(0) * positions
    x_VD = network.embed + average_D
    for group, mean_D in zip(groups, mean_GD, strict=True):
        x_VD[group] -= mean_D
    norm_L = crosscoder.W_dec[:, crosscoder.hook_index("blocks.0.ln2")].norm(dim=1)
    strength_VL = crosscoder.pre_activations(network.activations_at(x_VD)) * norm_L
    key_of_token = {token: key for key, group in enumerate(groups) for token in group}
    queries = task.n - 1 if task.name == "lookup" else 0  # each asks for a key of its own, and stands alone
    features = strength_VL.argmax(1).tolist()
    kinds = [
        (task.classes[token], key_of_token[token], token if token < queries else feature)
        for token, feature in enumerate(features)
    ]
    return _dictionary(features, kinds)


@torch.no_grad()
def read_attention_dictionary(
    crosscoder: Crosscoder, network: AttentionNetwork, task: ProductTask
) -> Dictionary:
    """The feature that is strongest where a token attends to itself alone: on its embedding and its value.

    Strength is the pre-activation times the norm of the feature's direction in the embedding.
    """
    alone_VPD = network.activations(torch.arange(task.vocabulary)[:, None])
    strength_VL = crosscoder.pre_activations(alone_VPD) * crosscoder.W_dec[:, 0].norm(dim=1)
    features = strength_VL.argmax(1).tolist()
    return _dictionary(features, list(zip(task.classes, features, strict=True)))


def _dictionary(features: list[int], kinds: Sequence[tuple[int, ...]]) -> Dictionary:
    """Columns are the tokens of one kind."""
    number = {kind: column for column, kind in enumerate(sorted(set(kinds)))}
    return Dictionary(tuple(features), Columns(tuple(number[kind] for kind in kinds)))


def _groups(task: ProductTask) -> list[range]:
    """The tokens that may fill each kind of position."""
    if task.name != "lookup":
        return [range(task.vocabulary)]
    keys, values = task.n - 1, task.values_per_key
    return [range(keys), *(range(keys + k * values, keys + (k + 1) * values) for k in range(keys))]

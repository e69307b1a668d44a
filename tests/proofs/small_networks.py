"""Networks and tasks small enough to go through every sequence."""

from itertools import product

import torch
from torch import Tensor

from xtalk.proofs.t3.columns import Columns
from xtalk.proofs.t3.sum_network import NetworkSizes, SumNetwork
from xtalk.proofs.t3.tasks import ProductTask

MAX = ProductTask("max", 3, (0, 1, 2, 0, 1, 2, 2), 3)
MIN = ProductTask("min", 3, (0, 1, 2, 0, 1, 2, 2), 3)
MAJORITY = ProductTask("majority", 3, (0, 1, 2, 0, 1), 3)
LOOKUP = ProductTask("lookup", 3, (0, 0, 0, 1, 1, 0, 2, 1), 3)  # keys 0 and 1: tokens 2-4 and 5-7
ADDITION = ProductTask("modular_addition", 3, (0, 1, 2, 0, 1, 2), 3)
ANCHORED = (MAX, MIN, MAJORITY, LOOKUP)

CLASS_COLUMNS = {  # tokens of a class together, but for one column in two
    MAX: Columns((0, 1, 2, 0, 1, 3, 2)),
    MIN: Columns((0, 1, 2, 0, 1, 3, 2)),
    MAJORITY: Columns((0, 1, 2, 0, 1)),
    LOOKUP: Columns((0, 1, 2, 3, 3, 4, 5, 6)),
}


def random_network(
    task: ProductTask, activation="relu", residual=True, seed=0, names_apart=0.2
) -> SumNetwork:
    """A random network of float64 in which tokens of a class differ by `names_apart`."""
    sizes = NetworkSizes(task.vocabulary, task.answers, 5, 7, activation, residual)
    generator = torch.Generator().manual_seed(seed)
    network = SumNetwork(sizes, generator).double()
    with torch.no_grad():
        groups = torch.tensor([key * 10 + c for key, c in zip(_keys(task), task.classes, strict=True)])
        shared = torch.randn(100, 5, generator=generator, dtype=torch.float64)[groups]
        network.embed.copy_(shared + names_apart * network.embed)
        network.b_in.copy_(torch.randn(7, generator=generator) / 2)
        network.b_unembed.copy_(torch.randn(task.answers, generator=generator) / 5)
    return network


def all_sequences(task: ProductTask) -> Tensor:
    """Every sequence that has an answer, by plain enumeration."""
    if task.name == "lookup":
        keys, values = task.n - 1, task.values_per_key
        groups = [range(keys), *(range(keys + k * values, keys + (k + 1) * values) for k in range(keys))]
        return torch.tensor(list(product(*groups)))
    sequences = list(product(range(task.vocabulary), repeat=task.n))
    if task.name == "majority":
        sequences = [s for s in sequences if _majority([task.classes[t] for t in s]) is not None]
    return torch.tensor(sequences)


def plain_answer(task: ProductTask, sequence: list[int]) -> int | None:
    """The answer, as the task is told in words."""
    classes = [task.classes[token] for token in sequence]
    answers = {
        "max": max(classes),
        "min": min(classes),
        "modular_addition": sum(classes) % task.answers,
        "majority": _majority(classes),
        "lookup": classes[1 + sequence[0]] if task.name == "lookup" else None,
    }
    return answers[task.name]


def _majority(classes: list[int]) -> int | None:
    return next((c for c in set(classes) if 2 * classes.count(c) > len(classes)), None)


def _keys(task: ProductTask) -> list[int]:
    """Which kind of position a token may fill."""
    if task.name != "lookup":
        return [0] * task.vocabulary
    keys = task.n - 1
    return [
        5 + token if token < keys else 1 + (token - keys) // task.values_per_key
        for token in range(task.vocabulary)
    ]

"""What proving needs of a network on a product space; `SumNetwork` and `AttentionNetwork` provide it."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.proofs.certificates import Certificate
from xtalk.proofs.t3.columns import Columns, Dictionary
from xtalk.proofs.t3.tasks import ProductTask
from xtalk.training.mlps import HasMlps


@runtime_checkable
class Runner(Protocol):
    """A network with all products of weights multiplied out, which goes through its inputs quickly."""

    distinct: int  # the inputs that the network can tell apart

    def run(self, size: int) -> Iterator[tuple[int, int]]:
        """For each piece of the space, of about `size` inputs: how many are answered right, of how many."""
        ...

    def sampled(self, size: int, generator: torch.Generator) -> int:
        """Run on about `size` random inputs; returns how many."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A network from n tokens to C logits."""

    @property
    def ordered(self) -> bool:
        """Whether the network tells sequences apart that differ in order alone."""
        ...

    def __call__(self, tokens_Bn: Int[Tensor, "B n"], ablated: bool = False) -> Float[Tensor, "B C"]:
        """The logits; `ablated`: with the layer's output replaced by its bias."""
        ...


@runtime_checkable
class Network(Answering, Protocol):
    """A network that a theorem is about whose certificates have a dictionary."""

    @property
    def theorem(self) -> str:
        """The checker's name of the theorem."""
        ...

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Where crosscoders read."""
        ...

    @property
    def d_model(self) -> int:
        """The width D."""
        ...

    @property
    def penalised(self) -> HasMlps | Mapping[str, HasMlps]:
        """The MLPs that penalties reach."""
        ...

    def activations(self, tokens_Bn: Int[Tensor, "B n"]) -> Float[Tensor, "B P D"]:
        """Activations at `hook_names`."""
        ...

    def state_dict(self) -> Any:
        """The weights by name."""
        ...

    def dictionary(self, crosscoder: Crosscoder, task: ProductTask) -> Dictionary:
        """The feature of each token."""
        ...

    def certify(self, task: ProductTask, columns: Columns) -> Certificate:
        """The shortest certificate that tables tokens."""
        ...

    def brute_force_multiply_adds(self, task: ProductTask) -> int:
        """What going through every input costs, products of weights shared."""
        ...

    def per_input_multiply_adds(self, task: ProductTask) -> int:
        """What one input costs, products of weights shared."""
        ...

    def runner(self, task: ProductTask) -> Runner:
        """The network ready to go through every input."""
        ...

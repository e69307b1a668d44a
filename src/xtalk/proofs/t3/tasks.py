"""Tasks on a product space: sequences of n tokens, whose classes decide the answer."""

from collections import Counter
from dataclasses import dataclass
from math import comb
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from xtalk.errors import XtalkError

TaskName = Literal["max", "min", "majority", "lookup", "modular_addition"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
_LARGEST_N = 16


@dataclass(frozen=True)
class ProductTask:
    """A question about sequences of n tokens; V tokens are names of C classes (`classes`, one per token).

    - max, min: the largest, smallest class among the tokens;
    - majority: the class of more than half of the tokens, over the sequences that have one;
    - modular_addition: the sum of the classes, modulo C;
    - lookup: n - 1 keys. Tokens are one query per key, then as many values for each key. A sequence is a
      query and then a value of every key in turn; the answer is the class of the value of the key that is
      asked for.
    """

    name: TaskName
    n: int
    classes: tuple[int, ...]
    answers: int

    @property
    def vocabulary(self) -> int:
        """The number of tokens V."""
        return len(self.classes)

    @property
    def values_per_key(self) -> int:
        """Lookup: how many tokens are values of one key."""
        return self.vocabulary // (self.n - 1) - 1

    @property
    def total(self) -> int:
        """The number of sequences that have an answer."""
        if self.name == "lookup":
            return (self.n - 1) * self.values_per_key ** (self.n - 1)
        if self.name == "majority":
            return sum(self._majorities().values())
        return self.vocabulary**self.n

    @property
    def distinct(self) -> int:
        """The number of inputs a network that sums its tokens can tell apart: up to order, where none
        matters.
        """
        if self.name == "lookup":
            return self.total
        if self.name == "majority":
            return sum(
                comb(size + copies - 1, copies) * comb(self.vocabulary - size + others - 1, others)
                for size in Counter(self.classes).values()
                for copies in range(self.n // 2 + 1, self.n + 1)
                for others in (self.n - copies,)
            )
        return comb(self.vocabulary + self.n - 1, self.n)

    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "count n"]:
        """Sequences drawn uniformly from those that have an answer."""
        if self.name == "lookup":
            keys, values = self.n - 1, self.values_per_key
            queries = torch.randint(keys, (count, 1), generator=generator)
            drawn = torch.randint(values, (count, keys), generator=generator)
            return torch.cat([queries, keys + values * torch.arange(keys) + drawn], 1)
        if self.name == "majority":
            return self._sample_majority(count, generator)
        return torch.randint(self.vocabulary, (count, self.n), generator=generator)

    def answer(self, tokens_Bn: Int[Tensor, "B n"]) -> Int[Tensor, "B"]:
        """The right answer of each sequence; every sequence must have one."""
        classes_Bn = torch.tensor(self.classes)[tokens_Bn]
        if self.name == "max":
            return classes_Bn.amax(1)
        if self.name == "min":
            return classes_Bn.amin(1)
        if self.name == "modular_addition":
            return classes_Bn.sum(1) % self.answers
        if self.name == "lookup":
            return classes_Bn.gather(1, 1 + tokens_Bn[:, :1])[:, 0]
        return classes_Bn.mode(1).values

    def spec(
        self, theorem: str, activation: str, residual: bool, weights_sha256: str | None
    ) -> dict[str, Any]:
        """The specification that a checker is given, of the deployed float32 network, ties losing."""
        task = {
            "name": self.name,
            "n": self.n,
            "classes": list(self.classes),
            "answers": self.answers,
            "activation": activation,
            "residual": residual,
            "ties": "lose",
            "arithmetic": "float32",
        }
        return {"format": "xtalk.spec/1", "theorem": theorem, "weights": weights_sha256, "task": task}

    def _majorities(self) -> dict[tuple[int, int], int]:
        """The number of sequences by the class that has the majority and how many tokens are of it."""
        sizes = Counter(self.classes)
        return {
            (answer, copies): comb(self.n, copies)
            * size**copies
            * (self.vocabulary - size) ** (self.n - copies)
            for answer, size in sizes.items()
            for copies in range(self.n // 2 + 1, self.n + 1)
        }

    def _sample_majority(self, count: int, generator: torch.Generator) -> Int[Tensor, "count n"]:
        kinds = self._majorities()
        weights = torch.tensor([float(number) for number in kinds.values()], dtype=torch.float64)
        drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
        answers_B, copies_B = torch.tensor(list(kinds))[drawn].unbind(1)
        classes_V = torch.tensor(self.classes)
        own_BV = (classes_V == answers_B[:, None]).float()
        own_Bn = torch.multinomial(own_BV, self.n, replacement=True, generator=generator)
        others_Bn = torch.multinomial(1 - own_BV, self.n, replacement=True, generator=generator)
        order_Bn = torch.rand(count, self.n, generator=generator).argsort(1)
        return torch.where(order_Bn < copies_B[:, None], own_Bn, others_Bn)


def product_task(name: str, vocabulary: int, n: int, classes: int) -> ProductTask:
    """A task over `vocabulary` tokens, which are names of `classes` classes in turn (token t of t mod
    classes).

    Lookup: as many tokens again as there are keys, the queries; the values are shared out evenly. Errors:
    XtalkError for sizes that make no task.
    """
    if name not in TASKS:
        raise XtalkError(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    if not 2 <= n <= _LARGEST_N:
        raise XtalkError(f"n is {n}; expected 2 to {_LARGEST_N} tokens in a sequence")
    keys = n - 1 if name == "lookup" else 1
    if not 2 <= classes <= vocabulary // keys or vocabulary % (keys * classes):
        raise XtalkError(
            f"{vocabulary} tokens are no whole number of names for each of {classes} classes"
            + (f" and {keys} keys" if keys > 1 else "")
            + "; expected at least 2 classes and a vocabulary that they divide"
        )
    names = tuple(token % classes for token in range(vocabulary))
    return ProductTask(name, n, (0,) * keys + names if name == "lookup" else names, classes)

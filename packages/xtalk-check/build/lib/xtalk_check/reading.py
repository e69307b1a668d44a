"""Strict readers: JSON without floats or surprises, and the container of the weights."""

import json
import math
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple, NoReturn, TypeAlias, cast

from flint import arb, arb_mat

from xtalk_check.errors import NotACertificate, Rejected
from xtalk_check.work import Work

Json: TypeAlias = "dict[str, Json] | list[Json] | int | str | bool | None"

MAGIC = b"xtalk.weights/1\n"
NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}", re.ASCII)
LONGEST_INTEGER = 60  # digits; the claims are counts of sequences
MOST_TENSORS = 64  # no theorem's network has a third of them


def parse(text: bytes, what: str) -> Json:
    """JSON in which numbers are integers of at most 60 digits and keys are unique; refuses anything else."""

    def refuse(seen: str) -> NoReturn:
        raise Rejected(f"the {what} has the number {seen[:40]}; numbers are integers")

    def integer(digits: str) -> int:
        if len(digits) > LONGEST_INTEGER:
            raise Rejected(f"the {what} has an integer of {len(digits)} digits")
        return int(digits)

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        members = dict(pairs)
        if len(members) < len(pairs):
            (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise Rejected(f"the {what} has the key {key[:40]!a} twice")
        return members

    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=refuse,
            parse_constant=refuse,
        )
    except RecursionError:
        raise Rejected(f"the {what} is nested too deeply") from None
    except ValueError as error:
        raise NotACertificate(f"the {what} is not JSON: {error}") from None


class Fields:
    """The members of a JSON object, each read once, by its type; `done` refuses what was not read."""

    def __init__(self, value: Json, where: str, work: Work | None = None) -> None:
        """`work` counts the integers that are read; those of the specification are not counted."""
        if not isinstance(value, dict):
            raise Rejected(f"{where} is not an object")
        self._left = dict(value)
        self._where = where
        self._work = work

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return self._integers([self._take(name)], name, low, high)[0]

    def integers(self, name: str, low: int, high: int, length: int | None = None) -> list[int]:
        """A list of integers from `low` to `high`, of that length."""
        return self._integers(self._list(self._take(name), name, length), name, low, high)

    def table(self, name: str, low: int, high: int, width: int | None = None) -> list[list[int]]:
        """A list of lists of integers from `low` to `high`, each list of that width."""
        table = self._list(self._take(name), name, None)
        return [self._integers(self._list(row, name, width), name, low, high) for row in table]

    def choice(self, name: str, *options: str) -> str:
        """One of the given strings."""
        value = self._take(name)
        if not isinstance(value, str) or value not in options:
            raise Rejected(f"{self._where}.{name} is {_short(value)}; expected {' or '.join(options)}")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise Rejected(f"{self._where}.{name} is {_short(value)}; expected true or false")
        return value

    def digest(self, name: str) -> str:
        """A SHA-256 in lower-case hexadecimal."""
        value = self._take(name)
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise Rejected(f"{self._where}.{name} is {_short(value)}; expected a SHA-256")
        return value

    def null(self, name: str) -> bool:
        """Whether the member is null; if it is, it is read."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return True
        return False

    def fields(self, name: str) -> "Fields":
        """An object inside this one."""
        return Fields(self._take(name), f"{self._where}.{name}", self._work)

    def done(self) -> None:
        """Refuse members that nobody read."""
        if self._left:
            raise Rejected(f"{self._where} has the unknown key {min(self._left)[:40]!a}")

    def _take(self, name: str) -> Json:
        if name not in self._left:
            raise Rejected(f"{self._where} lacks {name}")
        return self._left.pop(name)

    def _list(self, value: Json, name: str, length: int | None) -> list[Json]:
        if not isinstance(value, list):
            raise Rejected(f"{self._where}.{name} is {_short(value)}; expected a list")
        if length is not None and len(value) != length:
            raise Rejected(f"{self._where}.{name} has {len(value)} entries; expected {length}")
        return value

    def _integers(self, values: list[Json], name: str, low: int, high: int) -> list[int]:
        for value in values:
            if type(value) is not int:
                raise Rejected(f"{self._where}.{name} has {_short(value)}; expected an integer")
            if not low <= value <= high:
                raise Rejected(
                    f"{self._where}.{name} has {_short(value)}; expected an integer from {low} to {high}"
                )
        if self._work is not None:
            self._work.spend(reads=len(values))
        return cast(list[int], values)


def _short(value: Json) -> str:
    """The value for a message; a list or an object may be nested too deeply to be written out."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else json.dumps(value)[:40]


class Tensor(NamedTuple):
    """A tensor of the container: float32 values, each an exact dyadic rational."""

    shape: tuple[int, ...]
    values: Sequence[float]


@dataclass
class Weights:
    """The tensors of a container by name, and the SHA-256 of the container's bytes."""

    tensors: dict[str, Tensor]
    sha256: str
    _used: set[str] = field(default_factory=set[str])

    def values(self, name: str, *shape: int | None) -> tuple[tuple[int, ...], Sequence[float]]:
        """Shape and values of a tensor of the given shape; None takes any size of that axis."""
        if name not in self.tensors:
            raise Rejected(f"the weights lack {name}")
        tensor = self.tensors[name]
        if len(tensor.shape) != len(shape) or any(
            wanted not in (None, size) for size, wanted in zip(tensor.shape, shape, strict=True)
        ):
            raise Rejected(f"the weights' {name} has shape {tensor.shape}; expected {shape}")
        self._used.add(name)
        return tensor.shape, tensor.values

    def matrix(self, name: str, rows: int | None, columns: int | None) -> arb_mat:
        """A matrix of that shape, without rounding."""
        (height, width), values = self.values(name, rows, columns)
        return arb_mat(height, width, values)

    def vector(self, name: str, size: int | None) -> list[arb]:
        """A vector of that size, without rounding."""
        return [arb(value) for value in self.values(name, size)[1]]

    def done(self) -> None:
        """Refuse tensors that nobody read."""
        left = sorted(set(self.tensors) - self._used)
        if left:
            raise Rejected(f"the weights have {left[0]}, which the network of the specification has not")


def parse_weights(content: bytes) -> Weights:
    """Read a container: MAGIC, the number of tensors, then each tensor with names in increasing order.

    A tensor is the length of its name (uint16), its name, its number of axes (uint8), their sizes (uint32),
    and its values (float32), all little-endian, with nothing between, before or after.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise Rejected("the weights are not a container of xtalk's weights")
    at = len(MAGIC)

    def take(size: int) -> bytes:
        nonlocal at
        if at + size > len(content):
            raise Rejected("the weights end too early")
        at += size
        return content[at - size : at]

    tensors: dict[str, Tensor] = {}
    last = ""
    count: int = struct.unpack("<I", take(4))[0]
    if count > MOST_TENSORS:
        raise Rejected(f"the weights have {count} tensors; at most {MOST_TENSORS} are read")
    for _ in range(count):
        name = take(struct.unpack("<H", take(2))[0]).decode("latin-1")
        if not NAME.fullmatch(name):
            raise Rejected(f"the weights have a tensor named {name[:40]!a}")
        if name <= last:
            raise Rejected(f"the weights have {name} after {last}; names increase")
        shape: tuple[int, ...] = struct.unpack(f"<{(axes := take(1)[0])}I", take(4 * axes))
        if 0 in shape:
            raise Rejected(f"the weights' {name} is empty")
        raw = take(4 * math.prod(shape))
        values: tuple[float, ...] = struct.unpack(f"<{len(raw) // 4}f", raw)
        if not all(map(math.isfinite, values)):
            raise Rejected(f"the weights' {name} has a value that is not finite")
        tensors[name] = Tensor(shape, values)
        last = name
    if at < len(content):
        raise Rejected(f"the weights have {len(content) - at} bytes after the last tensor")
    return Weights(tensors, sha256(content).hexdigest())

"""Values that are large, made one after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class OneByOne(Mapping[K, V]):
    """A mapping whose values are made when they are asked for; the last one stays, and no other."""

    def __init__(self, keys: Iterable[K], make: Callable[[K], V]) -> None:
        self._keys = tuple(keys)
        self._make = make
        self._last: tuple[K, V] | None = None

    def __getitem__(self, key: K) -> V:
        if key not in self._keys:
            raise KeyError(key)
        if self._last is None or self._last[0] != key:
            self._last = None  # before the next one is made
            self._last = key, self._make(key)
        return self._last[1]

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def named(self, name: Callable[[K], str]) -> "OneByOne[str, V]":
        """The same values under other keys."""
        keys = {name(key): key for key in self._keys}
        return OneByOne(keys, lambda name: self[keys[name]])

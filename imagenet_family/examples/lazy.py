"""Mappings whose values are made when they are asked for.

Indexing an archive that nobody reads from takes minutes on a slow disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class LazyMapping(Mapping[str, Value]):
    """A mapping that makes each value once, when it is first asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Value]) -> None:
        """Makes nothing yet.

        Args:
            names: The keys.
            make: Gives the value of a key.
        """
        self._names = tuple(names)
        self._make = make
        self._made: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the inherited one would make the value

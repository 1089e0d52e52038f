"""Splits that are made when they are asked for.

Indexing an archive that nobody reads from takes minutes on a slow disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from imagenet_family.examples.table import Example, Examples

Value = TypeVar("Value")


class LazyExamples(Iterable[Example]):
    """A split whose archive is indexed when the split is first used."""

    def __init__(self, open_: Callable[[], Examples]) -> None:
        """Opens nothing yet.

        Args:
            open_: Gives the split.
        """
        self.open = functools.cache(open_)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.open())


class LazyMapping(Mapping[str, Value]):
    """A mapping that makes each value once, when it is first asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Value]) -> None:
        """Makes nothing yet.

        Args:
            names: The keys.
            make: Gives the value of a key.
        """
        self._names = tuple(names)
        self._make = functools.cache(make)

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the inherited one would make the value

"""The plan of a build: which example goes into which shard, at which place.

TFDS shuffles a split by the MD5 of (split name + key) and cuts the result into shards of nearly
equal counts. Both depend on names and sizes alone, so the whole layout is known from the index.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imagenet_family.errors import BuildError, DuplicateKeyError
from imagenet_family.examples.table import Examples, key_of

_NAMES_AT_ONCE = 1 << 14  # each is an object of its own while it is hashed

ShardCounter = Callable[[int, int], int]  # (bytes of all records, number of examples) -> shards


class ShardExamples(Protocol):
    """The examples of one shard, picklable, in the order in which they are written."""

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Gives each as `(key, example)`; the image is JPEG bytes and the rest plain values."""

    def records(self) -> Iterator[tuple[bytes, ...]]:
        """Gives each serialized, in pieces."""


class Plan(Protocol):
    """What is written of a split, such as a `SplitPlan`."""

    @property
    def split(self) -> str:
        """Name of the split."""

    @property
    def num_shards(self) -> int:
        """Number of shards."""

    @property
    def num_examples(self) -> int:
        """Number of examples."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all records, as far as they can be known."""

    def shard(self, index: int) -> ShardExamples:
        """Gives the examples of one shard."""

    def with_num_shards(self, num_shards: int) -> Plan:
        """Gives the same plan cut into another number of shards."""


@dataclasses.dataclass(frozen=True, eq=False)
class SplitPlan:
    """Where every example of a split goes.

    Attributes:
        split: Name of the split.
        examples: All examples of the split, in archive order.
        order: int64 (n,), the rows of `examples` in the order in which they are written.
        num_shards: Number of shards.
        record_sizes: int64 (n,), size of each record by row of `examples`, in bytes. Exact but
            for images that must be converted, whose new size is known once they are read.
    """

    split: str
    examples: Examples
    order: NDArray[np.int64]
    num_shards: int
    record_sizes: NDArray[np.int64]

    @property
    def num_examples(self) -> int:
        """Number of examples that are written."""
        return len(self.order)

    @property
    def boundaries(self) -> list[int]:
        """Where shards begin and end in `order`: num_shards + 1 positions from 0 to n."""
        return shard_boundaries(len(self.order), self.num_shards)

    @property
    def shard_lengths(self) -> list[int]:
        """Number of examples in each shard."""
        return np.diff(self.boundaries).tolist()

    @property
    def num_bytes(self) -> int:
        """Bytes of all records."""
        return int(self.record_sizes[self.order].sum())

    def shard(self, index: int) -> Examples:
        """Gives the examples of one shard, in the order in which they are written."""
        start, end = self.boundaries[index : index + 2]
        return self.examples.take(self.order[start:end])

    def with_num_shards(self, num_shards: int) -> SplitPlan:
        """Gives the same plan cut into another number of shards."""
        return dataclasses.replace(self, num_shards=num_shards)


def shard_boundaries(num_examples: int, num_shards: int) -> list[int]:
    """Gives where shards begin and end: num_shards + 1 positions from 0 to num_examples."""
    return [round(num_examples * shard / num_shards) for shard in range(num_shards + 1)]


def plan_split(
    split: str,
    examples: Examples,
    count_shards: ShardCounter,
    *,
    max_examples: int | None = None,
    ignore_duplicates: bool = False,
) -> SplitPlan:
    """Plans a split without reading an image.

    Args:
        split: Name of the split; part of the hash that orders it.
        examples: The split's examples in archive order.
        count_shards: Gives the number of shards from bytes and number of the examples.
        max_examples: Only the first so many examples of the archive, if given.
        ignore_duplicates: Keep the first of the examples that have the same key, instead of
            raising an error.

    Raises:
        DuplicateKeyError: Two examples have the same key.
        BuildError: There is no example, or there are more shards than examples.
    """
    if max_examples is not None:
        examples = examples.take(np.arange(min(max_examples, len(examples))))
    order = hash_order(split, examples, ignore_duplicates=ignore_duplicates)
    sizes = examples.record_sizes()
    num_shards = count_shards(int(sizes[order].sum()), len(order))
    if num_shards > len(order):
        raise BuildError(
            f"Split {split!r} has {len(order)} examples, too few for {num_shards} shards: "
            "ask for fewer shards."
        )
    return SplitPlan(split, examples, order, num_shards, sizes)


def hash_order(
    split: str, examples: Examples, *, ignore_duplicates: bool = False
) -> NDArray[np.int64]:
    """Orders examples as stock TFDS shuffles them.

    Returns:
        int64 (n,), rows of `examples`; of rows with the same key only the first one when
        `ignore_duplicates`.

    Raises:
        DuplicateKeyError: Two examples have the same key, and duplicates are not ignored.
        BuildError: There is no example.
    """
    if not len(examples):
        raise BuildError(
            f"Split {split!r} has no example: {examples.source} holds none of its images. "
            "Check that it is the archive of that name."
        )
    digests = b"".join(_digests(split, examples.names))
    high, low = np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64).T
    order = np.lexsort((low, high))  # stable: equal keys stay in archive order
    repeats = np.zeros(len(order), bool)
    repeats[1:] = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
    if repeats.any() and not ignore_duplicates:
        later = int(order[np.flatnonzero(repeats)[0]])
        first = int(order[np.flatnonzero(repeats)[0] - 1])
        one, other = (examples.files[examples.file[row]].source for row in (first, later))
        elsewhere = "" if one == other else f" of {other}"
        raise DuplicateKeyError(
            f"{one}: the name {examples.names[later].decode()} stands twice in split {split!r}, at "
            f"offsets {examples.offsets[first]} and {examples.offsets[later]}{elsewhere} "
            f"({int(repeats.sum())} such names). Use an archive without them, or "
            "ignore_duplicates=True to keep the first of each."
        )
    return order[~repeats]


def _digests(split: str, names: NDArray[np.bytes_]) -> Iterator[bytes]:
    """Gives the hashes of the keys of file names, those of some thousands at a time."""
    salt = split.encode()
    for start in range(0, len(names), _NAMES_AT_ONCE):
        yield b"".join(
            # TFDS reads a backslash as a Windows path separator before it hashes.
            hashlib.md5(salt + key_of(name).replace(b"\\", b"/"), usedforsecurity=False).digest()
            for name in names[start : start + _NAMES_AT_ONCE].tolist()
        )

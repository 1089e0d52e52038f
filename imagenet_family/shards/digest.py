"""Serialized examples on their way to a file or from one: counted, and digested."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import google_crc32c


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What a shard holds.

    Attributes:
        num_examples: Number of records.
        num_bytes: Bytes of all records, without the file format's own overhead.
        digest: SHA-256, in hex, of the length (8 bytes, little-endian) and CRC-32C (4 bytes) of
            every record in order. The same records have the same digest in every file format.
    """

    num_examples: int
    num_bytes: int
    digest: str

    def __str__(self) -> str:
        return f"{self.num_examples:,} examples ({self.num_bytes:,} bytes) of digest {self.digest}"

    @classmethod
    def from_json(cls, found: Any) -> ShardResult:
        """Takes what a file of JSON says of a shard.

        Raises:
            ValueError, TypeError or LookupError: It says something else.
        """
        if not isinstance(found["digest"], str):
            raise TypeError(f"expected a digest, found {found['digest']!r:.50}")
        return cls(count(found["num_examples"]), count(found["num_bytes"]), found["digest"])


def count(value: Any) -> int:
    """Takes a number of things from a file of JSON.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number, found {value!r:.50}")
    return value


@dataclasses.dataclass(frozen=True)
class Record:
    """One serialized example in pieces, so that an image need not be copied."""

    parts: tuple[bytes, ...]
    size: int
    crc: int

    @classmethod
    def of(cls, parts: tuple[bytes, ...]) -> Record:
        """Measures a record."""
        crc = 0
        for part in parts:
            crc = google_crc32c.extend(crc, part)
        return cls(parts, sum(map(len, parts)), crc)


class RecordDigest:
    """Counts and digests records as they pass."""

    def __init__(self) -> None:
        self._count = self._bytes = 0
        self._sha = hashlib.sha256()

    def watch(self, records: Iterable[tuple[bytes, ...]]) -> Iterator[Record]:
        """Measures records, each in pieces, and passes them on."""
        for parts in records:
            record = Record.of(parts)
            self.add(record)
            yield record

    def add(self, record: Record) -> None:
        """Takes one record into account."""
        self._count += 1
        self._bytes += record.size
        self._sha.update(struct.pack("<QI", record.size, record.crc))

    def result(self) -> ShardResult:
        """Gives what has passed so far."""
        return ShardResult(self._count, self._bytes, self._sha.hexdigest())

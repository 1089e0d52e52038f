"""The formats of shards, one module each; another one is a module here and a line in the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imagenet_family.examples.plan import Plan, ShardExamples
from imagenet_family.shards import array_record, tfrecord, webdataset
from imagenet_family.shards.digest import RecordDigest
from imagenet_family.storage.files import whole_name
from imagenet_family.storage.paths import PathLike


class Format(Protocol):
    """How the files of one format are written and read, such as by a module.

    What is raised beside `ImagenetFamilyError` and `OSError` is whatever the format's library
    raises: `shard` says it in words.
    """

    def write(self, path: PathLike, examples: ShardExamples, digest: RecordDigest) -> None:
        """Writes examples, in their order, to a file, whole or not at all; digests the records."""

    def read(self, path: PathLike) -> Iterator[bytes]:
        """Reads the records of a file in order, and checks what checksums it has."""

    def open_records(self, path: str, sizes: NDArray[np.int64]) -> Callable[[int], bytes] | None:
        """Gives a function that reads the record of a row, for any number of threads at once.

        Args:
            path: A file.
            sizes: int64 (n,), the bytes of each of its records.

        Returns:
            The function; None if the format gives no access to single records of such a file.
        """

    def file_bytes(self, plan: Plan) -> int:
        """Gives how many bytes the files of a split have, at most."""


class _ThroughTfds:
    """A format that only TFDS writes and reads, such as parquet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, path: PathLike, examples: ShardExamples, digest: RecordDigest) -> None:
        from imagenet_family import tfds_internals

        records = (b"".join(record.parts) for record in digest.watch(examples.records()))
        with whole_name(path) as name:
            tfds_internals.write_shard(name, records, self._name)

    def read(self, path: PathLike) -> Iterator[bytes]:
        from imagenet_family import tfds_internals

        yield from tfds_internals.record_reader(self._name)(os.fspath(path))

    def open_records(self, path: str, sizes: NDArray[np.int64]) -> None:
        return None

    def file_bytes(self, plan: Plan) -> int:
        return tfrecord.file_bytes(plan)  # these compress, and have less


_FORMATS: dict[str, Format] = {
    "tfrecord": tfrecord,
    "array_record": array_record,
    webdataset.FORMAT: webdataset,
}


def named(file_format: str) -> Format:
    """Gives a format.

    Args:
        file_format: A value of `tfds.core.FileFormat`, such as `'tfrecord'`, or `'webdataset'`.
    """
    return _FORMATS.get(file_format) or _ThroughTfds(file_format)

"""Writes one shard to one file, atomically, in any of TFDS's file formats.

The TFRecord framing is written here: it is 16 bytes a record, and TensorFlow takes seconds to
import and copies every record. Format: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import secrets
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
from etils import epath

from imagenet_family.errors import BuildError
from imagenet_family.examples import Examples

TEMPORARY_SUFFIX = ".incomplete"


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

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """Passes records on."""
        for record in records:
            self._count += 1
            self._bytes += record.size
            self._sha.update(struct.pack("<QI", record.size, record.crc))
            yield record

    def result(self) -> ShardResult:
        """Gives what has passed so far."""
        return ShardResult(self._count, self._bytes, self._sha.hexdigest())


def write_shard(examples: Examples, path: epath.PathLike, file_format: str) -> ShardResult:
    """Writes examples, in their order, to one file.

    The file appears under its name only when it is whole and on the disk.

    Args:
        examples: What to write.
        path: The file to write.
        file_format: A value of `tfds.core.FileFormat`, such as `'tfrecord'`.

    Raises:
        ArchiveError: The archive changed or is damaged.
        ImageError: A member is no image.
        BuildError: The file cannot be written, as when the disk is full.
    """
    digest = RecordDigest()
    records = digest.watch(Record.of(parts) for parts in examples.records())
    path = epath.Path(path)
    with atomic_file(path) as temporary:
        writer = _WRITERS.get(file_format)
        if writer is not None:
            writer(temporary, records)
        else:
            from imagenet_family import tfds_compat

            tfds_compat.write_shard(temporary, path, records, file_format)
    return digest.result()


@contextlib.contextmanager
def atomic_file(path: epath.Path) -> Iterator[epath.Path]:
    """Gives a temporary name beside `path` that becomes `path` if all goes well.

    Raises:
        BuildError: Instead of an `OSError`, with the file and what to do.
    """
    temporary = path.parent / f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        yield temporary
        if is_local(temporary):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_error(path: epath.PathLike, error: OSError) -> BuildError:
    """Says what kept a file from being written."""
    remedies = {
        errno.ENOSPC: "Make space and run the same command again; finished shards are kept",
        errno.EDQUOT: "Make space and run the same command again; finished shards are kept",
        errno.EROFS: "Choose a data_dir that can be written to",
        errno.EACCES: "Choose a data_dir that you may write to, or change its permissions",
        errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    }
    remedy = remedies.get(error.errno, "Run the same command again; finished shards are kept")
    return BuildError(f"Cannot write {os.fspath(path)}: {error}. {remedy}.")


def is_local(path: epath.PathLike) -> bool:
    """Tells whether a path is on a file system of this machine."""
    return "://" not in os.fspath(path)


def _write_tfrecord(path: epath.Path, records: Iterable[Record]) -> None:
    # A large buffer makes one system call of a record's five pieces; without it there would be
    # one for each.
    opened = open(path, "wb", buffering=1 << 20) if is_local(path) else path.open("wb")
    with opened as file:
        for record in records:
            write_tfrecord(file, record)


def write_tfrecord(file: BinaryIO, record: Record) -> None:
    """Writes one framed record: length, its CRC, the record, its CRC."""
    length = struct.pack("<Q", record.size)
    header = length + struct.pack("<I", masked_crc(google_crc32c.value(length)))
    file.writelines((header, *record.parts, struct.pack("<I", masked_crc(record.crc))))


def masked_crc(crc: int) -> int:
    """Masks a CRC-32C as TFRecord files hold it, so that it can itself be checksummed."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _write_array_record(path: epath.Path, records: Iterable[Record]) -> None:
    from array_record.python import array_record_module

    if not is_local(path):  # the library writes local files only
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / path.name
            _write_array_record(epath.Path(local), records)
            with local.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 24)
        return
    # One record a group, as TFDS writes it: a reader fetches single records.
    writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    try:
        for record in records:
            writer.write(b"".join(record.parts))
    finally:
        writer.close()


_WRITERS: dict[str, Callable[[epath.Path, Iterable[Record]], None]] = {
    "tfrecord": _write_tfrecord,
    "array_record": _write_array_record,
}

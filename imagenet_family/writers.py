"""Writes one shard to one file, atomically: any of TFDS's file formats, or a WebDataset tar.

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
from typing import Any, BinaryIO

import google_crc32c
from etils import epath

from imagenet_family import tar_samples
from imagenet_family.errors import BuildError, DuplicateKeyError
from imagenet_family.examples import FILE_NAME, Examples
from imagenet_family.remote import is_local

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


def write_shard(examples: Examples, path: epath.PathLike, file_format: str) -> ShardResult:
    """Writes examples, in their order, to one file.

    The file appears under its name only when it is whole.

    Args:
        examples: What to write.
        path: The file to write.
        file_format: A value of `tfds.core.FileFormat`, such as `'tfrecord'`, or `'webdataset'`.

    Raises:
        ArchiveError: The archive changed or is damaged.
        ImageError: A member is no image.
        BuildError: The file cannot be written, as when the disk is full.
    """
    digest = RecordDigest()
    path = epath.Path(path)
    with atomic_file(path) as temporary:
        if file_format == tar_samples.FORMAT:
            _write_webdataset(temporary, path, examples, digest)
            return digest.result()
        records = digest.watch(Record.of(parts) for parts in examples.records())
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

    It does not wait for the disk: after a loss of power the file may be cut, which is why an
    unfinished build checks every shard before it goes on from it.

    Raises:
        BuildError: Instead of an `OSError`, with the file and what to do.
    """
    local = is_local(path)
    # In an object store a file appears when it is closed, and renaming is copying.
    suffix = f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}" if local else ""
    temporary = path.parent / f"{path.name}{suffix}"
    done = False
    try:
        yield temporary
        if local:
            temporary.replace(path)
        done = True
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if not done:  # closed by an error, it may have appeared in part
            temporary.unlink(missing_ok=True)


def flush_folder(folder: epath.PathLike) -> None:
    """Waits until a folder of this machine and its files are on the disk.

    Raises:
        OSError: The disk refuses.
    """
    folder = Path(folder)
    for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
        flush(path)


def flush(path: epath.PathLike) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: epath.PathLike, error: OSError) -> BuildError:
    """Says what kept a file from being written."""
    remedies = {
        errno.ENOSPC: "Make space and run the same command again; finished shards are kept",
        errno.EDQUOT: "Make space and run the same command again; finished shards are kept",
        errno.EROFS: "Choose a folder that can be written to",
        errno.EACCES: "Choose a folder that you may write to, or change its permissions",
        errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    }
    remedy = remedies.get(error.errno, "Run the same command again; finished shards are kept")
    return BuildError(f"Cannot write {os.fspath(path)}: {error}. {remedy}.")


def _open(path: epath.Path) -> BinaryIO:
    # A large buffer makes one system call of a record's five pieces; without it there would be
    # one for each.
    return open(path, "wb", buffering=1 << 20) if is_local(path) else path.open("wb")


def _write_tfrecord(path: epath.Path, records: Iterable[Record]) -> None:
    with _open(path) as file:
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
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    try:
        writer.close()
    except RuntimeError as error:  # the library's word for whatever the system refused
        code = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else errno.EIO
        raise OSError(code, str(error)) from error


def _write_webdataset(
    temporary: epath.Path,
    path: epath.Path,
    examples: Iterable[tuple[str, dict[str, Any]]],
    digest: RecordDigest,
) -> None:
    keys: dict[str, str] = {}
    length = 0
    with _open(temporary) as file:
        for _, example in examples:
            name = example[FILE_NAME]
            same = keys.setdefault(tar_samples.sample_key(name), name)
            if same != name:
                raise DuplicateKeyError(
                    f"{os.fspath(path)}: {same} and {name} would be one sample, as a WebDataset "
                    "key has neither suffix nor dots. Rename one of them."
                )
            digest.add(Record.of(tar_samples.record(example)))
            pieces = tar_samples.sample(example)
            file.writelines(pieces)
            length += sum(map(len, pieces))
        file.write(tar_samples.tar_end(length))


_WRITERS: dict[str, Callable[[epath.Path, Iterable[Record]], None]] = {
    "tfrecord": _write_tfrecord,
    "array_record": _write_array_record,
}

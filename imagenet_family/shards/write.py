"""Writes one shard to one file, atomically: TFDS's file formats but riegeli, or a WebDataset tar.

The TFRecord framing is written here: it is 16 bytes a record, and TensorFlow takes seconds to
import and copies every record. Format: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from etils import epath

from imagenet_family.errors import DuplicateKeyError
from imagenet_family.examples.table import FILE_NAME, Examples
from imagenet_family.shards import webdataset
from imagenet_family.shards.digest import Record, RecordDigest, ShardResult, masked_crc
from imagenet_family.storage.files import atomic_file
from imagenet_family.storage.stores import is_local


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
        UsageError: The format cannot be written.
    """
    digest = RecordDigest()
    path = epath.Path(path)
    with atomic_file(path) as temporary:
        if file_format == webdataset.FORMAT:
            _write_webdataset(temporary, path, examples, digest)
            return digest.result()
        records = digest.watch(Record.of(parts) for parts in examples.records())
        writer = _WRITERS.get(file_format)
        if writer is not None:
            writer(temporary, records)
        else:
            from imagenet_family import tfds_internals

            serialized = (b"".join(record.parts) for record in records)
            tfds_internals.write_shard(temporary, serialized, file_format)
    return digest.result()


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
            same = keys.setdefault(webdataset.sample_key(name), name)
            if same != name:
                raise DuplicateKeyError(
                    f"{os.fspath(path)}: {same} and {name} would be one sample, as a WebDataset "
                    "key has neither suffix nor dots. Rename one of them."
                )
            digest.add(Record.of(webdataset.record(example)))
            pieces = webdataset.sample(example)
            file.writelines(pieces)
            length += sum(map(len, pieces))
        file.write(webdataset.tar_end(length))


_WRITERS: dict[str, Callable[[epath.Path, Iterable[Record]], None]] = {
    "tfrecord": _write_tfrecord,
    "array_record": _write_array_record,
}

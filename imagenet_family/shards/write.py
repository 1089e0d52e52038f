"""Writes one shard to one file, atomically: TFDS's file formats but riegeli, or a WebDataset tar.

The TFRecord framing is written here: it is 16 bytes a record, and TensorFlow takes seconds to
import and copies every record. Format: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import google_crc32c

from imagenet_family.errors import DuplicateKeyError
from imagenet_family.examples.table import FILE_NAME, Examples
from imagenet_family.shards import webdataset
from imagenet_family.shards.digest import Record, RecordDigest, ShardResult, masked_crc
from imagenet_family.storage.files import whole_file, whole_name
from imagenet_family.storage.paths import PathLike


def write_shard(examples: Examples, path: PathLike, file_format: str) -> ShardResult:
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
    if file_format == webdataset.FORMAT:
        with whole_file(path) as file:
            _write_webdataset(file, path, examples, digest)
        return digest.result()
    records = digest.watch(Record.of(parts) for parts in examples.records())
    if file_format == "tfrecord":
        with whole_file(path) as file:
            for record in records:
                write_tfrecord(file, record)
        return digest.result()
    with whole_name(path) as temporary:
        if file_format == "array_record":
            _write_array_record(temporary, records)
        else:
            from imagenet_family import tfds_internals

            serialized = (b"".join(record.parts) for record in records)
            tfds_internals.write_shard(temporary, serialized, file_format)
    return digest.result()


def write_tfrecord(file: BinaryIO, record: Record) -> None:
    """Writes one framed record: length, its CRC, the record, its CRC."""
    length = struct.pack("<Q", record.size)
    header = length + struct.pack("<I", masked_crc(google_crc32c.value(length)))
    file.writelines((header, *record.parts, struct.pack("<I", masked_crc(record.crc))))


def _write_array_record(path: str, records: Iterable[Record]) -> None:
    from array_record.python import array_record_module

    # One record a group, as TFDS writes it: a reader fetches single records.
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
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
    file: BinaryIO,
    path: PathLike,
    examples: Iterable[tuple[str, dict[str, Any]]],
    digest: RecordDigest,
) -> None:
    keys: dict[str, str] = {}
    length = 0
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

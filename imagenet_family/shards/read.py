"""Reads shards back, record by record, checking every checksum on the way."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable, Iterator

import google_crc32c

from imagenet_family.errors import BuildError, ImagenetFamilyError
from imagenet_family.shards import manifest, webdataset
from imagenet_family.shards.digest import Record, RecordDigest, ShardResult, masked_crc
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike

_BLOCK = 256  # array records in memory at once; with 64, reading takes twice as long
_MAX_RECORD = 1 << 31  # protobuf's own limit; a larger length is damage, not a record


def read_records(path: PathLike, file_format: str) -> Iterator[bytes]:
    """Reads the records of one shard in order.

    Args:
        path: The shard.
        file_format: A value of `tfds.core.FileFormat`, or `'webdataset'`, whose samples become the
            records that they were made of.

    Raises:
        BuildError: The file is missing or damaged.
    """
    path = os.fspath(path)
    reader = _READERS.get(file_format)
    try:
        if reader is None:
            from imagenet_family import tfds_internals

            reader = tfds_internals.record_reader(file_format)
        yield from reader(path)
    except ImagenetFamilyError:
        raise
    except Exception as error:  # each format's library has its own exceptions
        raise BuildError(
            f"Shard {path} cannot be read: {error}. Build or export it again."
        ) from error


def summarize(path: PathLike, file_format: str) -> ShardResult:
    """Reads a whole shard and says what it holds.

    Raises:
        BuildError: The file is missing or damaged.
    """
    digest = RecordDigest()
    for _ in digest.watch(Record.of((record,)) for record in read_records(path, file_format)):
        pass
    return digest.result()


@dataclasses.dataclass(frozen=True)
class ShardCheck:
    """What was found of a shard.

    Attributes:
        found: What it holds; None if it cannot be read.
        problem: What is wrong with it and what to do, or None.
    """

    found: ShardResult | None
    problem: str | None


def check_shard(
    path: PathLike,
    file_format: str,
    recorded: ShardResult | None,
    recorded_in: str = manifest.NAME,
) -> ShardCheck:
    """Reads a whole shard, checking every checksum, and compares it with what is recorded of it.

    Args:
        path: The shard.
        file_format: See `read_records`.
        recorded: What it should hold; None if that is not known.
        recorded_in: The file that says so, for the message.
    """
    try:
        found = summarize(path, file_format)
    except ImagenetFamilyError as error:
        return ShardCheck(None, str(error))
    if recorded is None or found == recorded:
        return ShardCheck(found, None)
    return ShardCheck(
        found,
        f"{os.fspath(path)} holds {found}, and {recorded_in} records {recorded}. The shard was "
        "changed or replaced. Build or export it again.",
    )


def _read_tfrecord(path: str) -> Iterator[bytes]:
    with files.open_read(path) as file:
        offset = 0
        while header := file.read(12):
            if len(header) < 12:
                raise _damaged(path, offset, "the file ends inside a record's header")
            length, crc = struct.unpack("<QI", header)
            if masked_crc(google_crc32c.value(header[:8])) != crc or length > _MAX_RECORD:
                raise _damaged(path, offset, "a record's length does not fit its checksum")
            record = file.read(length)
            footer = file.read(4)
            if len(record) < length or len(footer) < 4:
                raise _damaged(path, offset, f"the file ends inside a record of {length} bytes")
            if masked_crc(google_crc32c.value(record)) != struct.unpack("<I", footer)[0]:
                raise _damaged(path, offset, "a record does not fit its checksum")
            yield record
            offset += length + 16


def _damaged(path: str, offset: int, problem: str) -> BuildError:
    return BuildError(
        f"Shard {path} is damaged at offset {offset}: {problem}. Build or export it again."
    )


def _read_array_record(path: str) -> Iterator[bytes]:
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
    try:
        count = reader.num_records()
        for start in range(0, count, _BLOCK):  # a call for each record takes 500 µs
            yield from reader.read(start, min(start + _BLOCK, count))
    finally:
        reader.close()


def _read_webdataset(path: str) -> Iterator[bytes]:
    with files.open_read(path) as file:
        for example in webdataset.read_samples(file):
            yield b"".join(webdataset.record(example))


_READERS: dict[str, Callable[[str], Iterator[bytes]]] = {
    "tfrecord": _read_tfrecord,
    "array_record": _read_array_record,
    webdataset.FORMAT: _read_webdataset,
}

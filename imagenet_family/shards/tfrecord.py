"""TFRecord files, written and read without TensorFlow.

The framing is 16 bytes a record; TensorFlow takes seconds to import and copies every record.
Format: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from imagenet_family.errors import BuildError
from imagenet_family.examples.plan import Plan, ShardExamples
from imagenet_family.shards.digest import Record, RecordDigest
from imagenet_family.storage.files import open_read, whole_file
from imagenet_family.storage.paths import PathLike, is_local

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER = struct.Struct("<QI")
_OVERHEAD = _HEADER.size + _CRC.size
_MAX_RECORD = 1 << 31  # protobuf's own limit; a larger length is damage, not a record


def write(path: PathLike, examples: ShardExamples, digest: RecordDigest) -> None:
    """Writes a file; see `formats.Format`."""
    with whole_file(path) as file:
        for record in digest.watch(examples.records()):
            write_record(file, record)


def write_record(file: BinaryIO, record: Record) -> None:
    """Writes one framed record: length, its CRC, the record, its CRC."""
    length = _LENGTH.pack(record.size)
    header = length + _CRC.pack(_masked(google_crc32c.value(length)))
    file.writelines((header, *record.parts, _CRC.pack(_masked(record.crc))))


def read(path: PathLike) -> Iterator[bytes]:
    """Reads a file; see `formats.Format`."""
    with open_read(path) as file:
        offset = 0
        while header := file.read(_HEADER.size):
            record = _read_record(file, path, offset, header)
            yield record
            offset += len(record) + _OVERHEAD


def open_records(path: str, sizes: NDArray[np.int64]) -> Callable[[int], bytes] | None:
    """Opens a file for its single records; see `formats.Format`."""
    if not is_local(path):
        return None
    offsets = np.cumsum(sizes + _OVERHEAD) - (sizes + _OVERHEAD)

    def record(row: int) -> bytes:
        offset = int(offsets[row])
        with open(path, "rb") as file:
            file.seek(offset)
            return _read_record(file, path, offset, file.read(_HEADER.size))

    return record


def file_bytes(plan: Plan) -> int:
    """Gives the bytes of files, exactly; see `formats.Format`."""
    return plan.num_bytes + _OVERHEAD * plan.num_examples


def _read_record(file: BinaryIO, path: PathLike, offset: int, header: bytes) -> bytes:
    """Reads the record of a header at an offset."""
    if len(header) < _HEADER.size:
        raise _damaged(path, offset, "the file ends inside a record's header")
    length, crc = _HEADER.unpack(header)
    if _masked(google_crc32c.value(header[: _LENGTH.size])) != crc:
        raise _damaged(path, offset, "a record's length does not fit its checksum")
    if length > _MAX_RECORD:
        raise _damaged(path, offset, f"a record of {length} bytes is longer than any can be")
    record = file.read(length)
    footer = file.read(_CRC.size)
    if len(record) < length or len(footer) < _CRC.size:
        raise _damaged(path, offset, f"the file ends inside a record of {length} bytes")
    if _masked(google_crc32c.value(record)) != _CRC.unpack(footer)[0]:
        raise _damaged(path, offset, "a record does not fit its checksum")
    return record


def _masked(crc: int) -> int:
    """Masks a CRC-32C as these files hold it, so that it can itself be checksummed."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(path: PathLike, offset: int, problem: str) -> BuildError:
    return BuildError(
        f"Shard {os.fspath(path)} is damaged at offset {offset}: {problem}. "
        "Build or export it again."
    )

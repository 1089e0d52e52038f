"""ArrayRecord files, through Google's library; one record a group, as TFDS writes them."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagenet_family.examples.plan import Plan, ShardExamples
from imagenet_family.shards.digest import Record, RecordDigest
from imagenet_family.storage.files import whole_name
from imagenet_family.storage.paths import PathLike

# At most, with one record a chunk: chunk headers and index entry of a record, a header in each
# block, and two times up to a block to fill up.
_RECORD_OVERHEAD = 80
_BLOCK_BYTES = 1 << 16
_BLOCK_HEADER = 24
_TOGETHER = 256  # records in memory at once; with 64, reading takes twice as long
_READER_OPTIONS = "readahead_buffer_size:0"


def write(path: PathLike, examples: ShardExamples, digest: RecordDigest) -> None:
    """Writes a file; see `formats.Format`."""
    from array_record.python import array_record_module

    with whole_name(path) as name:  # the library writes local files only
        _write(array_record_module, name, digest.watch(examples.records()))


def _write(library: Any, path: str, records: Iterable[Record]) -> None:
    # One record a group: a reader fetches single records.
    writer = library.ArrayRecordWriter(path, "group_size:1")
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


def read(path: PathLike) -> Iterator[bytes]:
    """Reads a file; see `formats.Format`."""
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(os.fspath(path), _READER_OPTIONS)
    try:
        count = reader.num_records()
        for start in range(0, count, _TOGETHER):  # a call for each record takes 500 µs
            yield from reader.read(start, min(start + _TOGETHER, count))
    finally:
        reader.close()


def open_records(path: str, sizes: NDArray[np.int64]) -> Callable[[int], bytes] | None:
    """Opens a file for its single records; see `formats.Format`."""
    from array_record.python import array_record_module

    del sizes  # the file has an index
    lock = threading.Lock()
    opened = functools.cache(lambda: array_record_module.ArrayRecordReader(path, _READER_OPTIONS))

    def record(row: int) -> bytes:
        with lock:
            (found,) = opened().read([row])
        return bytes(found)

    return record


def file_bytes(plan: Plan) -> int:
    """Gives the bytes of files, at most; see `formats.Format`."""
    num_bytes = plan.num_bytes + _RECORD_OVERHEAD * plan.num_examples
    num_bytes += num_bytes // _BLOCK_BYTES * _BLOCK_HEADER
    return num_bytes + 2 * _BLOCK_BYTES * plan.num_shards

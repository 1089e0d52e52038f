"""Labels of a prepared dataset, read past its images.

A TFRecord file is mapped into memory and its records are walked entry by entry, so that the pages
which hold images are not read. Nor is the checksum of each record computed, for which the image is
needed: `imagenet-family verify` does that. Other formats are compressed, or do not say where the
parts of a record are: their records are read whole.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
import numpy as np
from etils import epath
from tqdm.auto import tqdm

from imagenet_family import progress, readers, tf_example
from imagenet_family.errors import BuildError
from imagenet_family.examples import IMAGE
from imagenet_family.prepared import PreparedSplit
from imagenet_family.writers import is_local, masked_crc

_HEADER = 12
_FOOTER = 4
_FIELD_1 = 0x0A  # Example.features, Features.feature and a map entry's key
_IMAGE_KEY = bytes([_FIELD_1, len(IMAGE)]) + IMAGE.encode()
_MAX_VARINT = 10
_LARGE_RECORD = 32 << 10  # bytes on average
_RECORDS_TOGETHER = 256  # of array_record, whose reader is slow for single ones


@dataclasses.dataclass(frozen=True)
class PreparedLabels:
    """The labels of a prepared split, and where its images are.

    Attributes:
        columns: Every feature but the image, by name, one entry an example.
        image: Reads the image of an example, by its row, as JPEG bytes; None if the format gives
            no access to single records. Any number of threads may call it.
    """

    columns: dict[str, Any]
    image: Callable[[int], bytes] | None


def read_labels(plan: PreparedSplit, *, show_progress: bool = True) -> PreparedLabels:
    """Reads the labels of a prepared split in its order.

    Args:
        plan: The split.
        show_progress: Whether to show a progress bar.

    Raises:
        BuildError: A file is missing, damaged, or not of this dataset.
    """
    kinds = {name: kind for name, kind in plan.features.items() if name != IMAGE}
    columns: dict[str, list[Any]] = {name: [] for name in kinds}
    files, places = [], []
    local = all(is_local(epath.Path(path)) for path in plan.paths)
    mapped = local and plan.file_format == "tfrecord"
    with tqdm(
        desc="Reading labels",
        total=plan.num_examples,
        unit="image",
        mininterval=0.2,
        disable=None if show_progress and progress.tfds_bars_enabled() else True,
    ) as bar:
        for path, length in zip(plan.paths, plan.lengths, strict=True):
            file = _Mapped(path, length) if mapped else _Whole(path, plan.file_format)
            found = 0
            for place, record in file.records():
                _append(columns, kinds, record, f"{path}: record {found}")
                places.append((len(files), place))
                found += 1
                bar.update()
            if found != length:
                raise BuildError(
                    f"{path}: expected {length} records, as dataset_info.json says, found "
                    f"{found}. Build the dataset again."
                )
            files.append(file)

    def image(row: int) -> bytes:
        shard, place = places[row]
        return _image_of(files[shard].read(place), f"{plan.paths[shard]}: record {place}")

    by_place = mapped or plan.file_format == "array_record"
    return PreparedLabels(_as_arrays(columns), image if by_place else None)


class _Mapped:
    """A local TFRecord file; an example's place is its offset and length."""

    def __init__(self, path: str, num_records: int) -> None:
        self._path = path
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                # An empty file cannot be mapped.
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise BuildError(f"Shard {path} cannot be read: {error}. Build it again.") from error
        # No reading ahead into images; records without large ones are rather read in one go.
        if size > _LARGE_RECORD * num_records and hasattr(mmap, "MADV_RANDOM"):
            self._data.madvise(mmap.MADV_RANDOM)

    def records(self) -> Iterator[tuple[tuple[int, int], bytes]]:
        """Gives place and record of each example, without the entry of the image."""
        data, offset = self._data, 0
        while offset < len(data):
            header = data[offset : offset + _HEADER]
            if len(header) < _HEADER:
                raise self._damaged(offset, "the file ends inside a record's header")
            length, crc = struct.unpack("<QI", header)
            if masked_crc(google_crc32c.value(header[:8])) != crc:
                raise self._damaged(offset, "a record's length does not fit its checksum")
            start = offset + _HEADER
            if start + length + _FOOTER > len(data):
                raise self._damaged(offset, f"the file ends inside a record of {length} bytes")
            try:
                record = without_image(data, start, start + length)
            except ValueError as error:
                raise self._damaged(offset, str(error)) from error
            yield (start, length), record
            offset = start + length + _FOOTER

    def read(self, place: tuple[int, int]) -> bytes:
        """Reads a whole record."""
        start, length = place
        return self._data[start : start + length]

    def _damaged(self, offset: int, problem: str) -> BuildError:
        return BuildError(
            f"Shard {self._path} is damaged at offset {offset}: {problem}. Build it again."
        )


class _Whole:
    """A file of any other format, or a remote one; an example's place is its position."""

    def __init__(self, path: str, file_format: str) -> None:
        self._path, self._format = path, file_format
        self._reader: Any = None
        self._lock = threading.Lock()

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Gives place and record of each example."""
        if self._format != "array_record":
            yield from enumerate(readers.read_records(self._path, self._format))
            return
        total = self._call(lambda reader: reader.num_records())
        for start in range(0, total, _RECORDS_TOGETHER):
            places = list(range(start, min(start + _RECORDS_TOGETHER, total)))
            yield from zip(places, self._read(places), strict=True)

    def read(self, place: int) -> bytes:
        """Reads a record of an array_record file."""
        return self._read([place])[0]

    def _read(self, places: list[int]) -> list[bytes]:
        return self._call(lambda reader: reader.read(places))

    def _call(self, function: Callable[[Any], Any]) -> Any:
        from array_record.python import array_record_module

        try:
            with self._lock:
                if self._reader is None:
                    self._reader = array_record_module.ArrayRecordReader(
                        self._path, "readahead_buffer_size:0"
                    )
                return function(self._reader)
        except Exception as error:  # the library has no exceptions of its own
            raise BuildError(
                f"Shard {self._path} cannot be read: {error}. Build it again."
            ) from error


def without_image(data: Any, start: int, stop: int) -> bytes:
    """Gives a serialized `tf.train.Example` without the entry of its image.

    Args:
        data: Bytes or a mapped file; the image's own bytes are not touched.
        start: Where the example starts in `data`.
        stop: Where it ends.

    Returns:
        A serialized example of all the other features.

    Raises:
        ValueError: It is no such example.
    """
    if start == stop:
        return b""
    position, end = _delimited(data, start, stop)
    if end != stop:
        raise ValueError("a record is no tf.train.Example")
    entries = []
    while position < end:
        begin, after = _delimited(data, position, end)
        if data[begin : min(begin + len(_IMAGE_KEY), after)] != _IMAGE_KEY:
            entries.append(data[position:after])
        position = after
    kept = b"".join(entries)
    return bytes([_FIELD_1]) + tf_example.varint(len(kept)) + kept


def _delimited(data: Any, position: int, limit: int) -> tuple[int, int]:
    """Gives where the payload of the field at `position` starts and ends."""
    if data[position] != _FIELD_1:
        raise ValueError("a record is no tf.train.Example")
    size = shift = 0
    for at in range(position + 1, min(position + 1 + _MAX_VARINT, limit)):
        byte = data[at]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            if at + 1 + size > limit:
                break
            return at + 1, at + 1 + size
        shift += 7
    raise ValueError("a field reaches past the end of its record")


def _append(columns: dict[str, list[Any]], kinds: dict[str, type], record: bytes, at: str) -> None:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        found = tf_example_pb2.Example.FromString(record).features.feature
        for name, kind in kinds.items():
            if name not in found:
                raise LookupError(f"{name} is missing")
            feature = found[name]
            if kind is str:
                columns[name].append(feature.bytes_list.value[0].decode())
            elif kind is list:
                columns[name].append(list(feature.int64_list.value))
            else:
                columns[name].append(kind(feature.int64_list.value[0]))
    except (DecodeError, ValueError, LookupError) as error:
        raise BuildError(
            f"{at} has not the features {', '.join(columns)} ({error}). Build the dataset again."
        ) from error


def _image_of(record: bytes, at: str) -> bytes:
    """Gives the image of a serialized example."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record).features.feature[IMAGE].bytes_list.value[0]
    except (DecodeError, LookupError) as error:
        raise BuildError(f"{at} has no image ({error}). Build the dataset again.") from error


def _as_arrays(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Makes arrays of the columns that hold one value an image."""
    return {
        name: np.array(values) if values and isinstance(values[0], bool | int) else values
        for name, values in columns.items()
    }

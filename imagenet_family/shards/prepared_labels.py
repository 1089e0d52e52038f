"""Labels of a prepared dataset, read past its images and saved for the next time.

A local TFRecord file is mapped into memory and only the parts of a record that are not its image
are read. Nor is the checksum of each record computed, for which the image is needed:
`imagenet-family verify` does that. Other formats are compressed, and those of an object store come
by request: a build saves their labels. Where it has not, as for datasets of stock TFDS, their
records are read whole, the first time.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from imagenet_family import progress
from imagenet_family.errors import BuildError
from imagenet_family.examples.table import IMAGE, Column, Ragged
from imagenet_family.shards import example_columns, read, saved_labels
from imagenet_family.shards.prepared import PreparedSplit, skips_images
from imagenet_family.storage.paths import PathLike, absolute

_HEADER = 12
_FOOTER = 4
_LARGE_RECORD = 32 << 10  # bytes on average
_BYTES_TOGETHER = 32 << 20  # of records that are read whole
_RECORDS_TOGETHER = 10_000
# Where a record of a TFRecord file is, kept with the columns; no feature has such a name.
_START, _STOP = "record start", "record stop"


@dataclasses.dataclass(frozen=True)
class PreparedLabels:
    """The labels of a prepared split, and where its images are.

    Attributes:
        columns: Every feature but the image, by name, one entry an example.
        image: Reads the image of an example, by its row, as JPEG bytes; None if the format gives
            no access to single records. Any number of threads may call it.
    """

    columns: dict[str, Column]
    image: Callable[[int], bytes] | None


def read_labels(
    plan: PreparedSplit, folder: PathLike, *, show_progress: bool = True
) -> PreparedLabels:
    """Reads the labels of a prepared split in its order.

    Args:
        plan: The split.
        folder: Where they are saved. What was saved of files that have changed is not used.
        show_progress: Whether to show a progress bar.

    Raises:
        BuildError: A file is missing, damaged, or not of this dataset.
    """
    folder = absolute(folder)
    identity = saved_labels.identity(plan)
    columns = saved_labels.load(folder, plan, identity)
    if columns is None:
        columns = _read(plan, show_progress)
        saved_labels.save(folder, plan, identity, columns)
    starts, stops = columns.pop(_START, None), columns.pop(_STOP, None)
    if starts is not None:
        image = functools.partial(_image_of_tfrecord, plan, starts, stops)
    elif plan.file_format == "array_record":
        image = _ArrayRecords(plan).image
    else:
        image = None
    return PreparedLabels(columns, image)


def _read(plan: PreparedSplit, show_progress: bool) -> dict[str, Column]:
    kinds = {name: kind for name, kind in plan.features.items() if name != IMAGE}
    together = _BYTES_TOGETHER * plan.num_examples // max(1, plan.num_bytes)
    together = min(max(together, 1), _RECORDS_TOGETHER)
    parts: list[dict[str, Column]] = []
    with tqdm(
        desc="Reading labels",
        total=plan.num_examples,
        unit="image",
        mininterval=0.2,
        disable=None if show_progress and progress.tfds_bars_enabled() else True,
    ) as bar:
        for path, length in zip(plan.paths, plan.lengths, strict=True):
            found = 0
            for part in (
                _parse_mapped(path, kinds, length)
                if skips_images(plan.file_format, path)
                else _parse_whole(path, plan.file_format, kinds, together)
            ):
                parts.append(part)
                found += len(part[next(iter(kinds))])
                bar.update(len(part[next(iter(kinds))]))
            if found != length:
                raise BuildError(
                    f"{path}: expected {length} records, as dataset_info.json says, found "
                    f"{found}. Build the dataset again."
                )
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def _joined(parts: list[Any]) -> Column:
    if isinstance(parts[0], Ragged):
        shifts = np.cumsum([0, *(len(part.values) for part in parts[:-1])])
        ends = [part.ends + shift for part, shift in zip(parts, shifts, strict=True)]
        return Ragged(np.concatenate([part.values for part in parts]), np.concatenate(ends))
    return np.concatenate(parts)


def _parse_mapped(path: str, kinds: dict[str, type], length: int) -> Iterator[dict[str, Column]]:
    """Parses all records of a local TFRecord file."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:  # cannot be mapped
                return
            # Not closed: it goes with the last array on it. The traceback of an error has one, and
            # closing would then be an error in the place of that one.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # No reading ahead into images; other records are rather read in one go.
        if size > _LARGE_RECORD * max(1, length) and hasattr(mmap, "MADV_RANDOM"):
            data.madvise(mmap.MADV_RANDOM)
        starts, stops = _frames(data)
        columns = example_columns.parse(np.frombuffer(data, np.uint8), starts, stops, kinds)
    except OSError as error:
        raise BuildError(f"Shard {path} cannot be read: {error}. Build it again.") from error
    except ValueError as error:
        for _ in read.read_records(path, "tfrecord"):  # which says where the damage is
            pass
        raise _not_of_this_dataset(path, kinds, error) from error
    yield columns | {_START: starts, _STOP: stops}


def _frames(data: mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
    """Finds the records of a TFRecord file: each says how long it is."""
    starts, lengths = [], []
    offset, size = 0, len(data)
    read_length = struct.Struct("<Q").unpack_from
    while offset < size - _HEADER:
        (length,) = read_length(data, offset)
        starts.append(offset + _HEADER)
        lengths.append(length)
        offset += _HEADER + length + _FOOTER
    if offset != size:
        raise ValueError(f"its records end at {offset}, the file at {size}")
    return np.array(starts, np.int64), np.array(starts, np.int64) + np.array(lengths, np.int64)


def _parse_whole(
    path: str, file_format: str, kinds: dict[str, type], together: int
) -> Iterator[dict[str, Column]]:
    """Parses the records of a file of any format, some of them at a time."""
    records = read.read_records(path, file_format)
    first = 0
    while some := list(itertools.islice(records, together)):
        stops = np.cumsum([len(record) for record in some])
        starts = np.concatenate([[0], stops[:-1]])
        try:
            yield example_columns.parse(
                np.frombuffer(b"".join(some), np.uint8), starts, stops, kinds
            )
        except example_columns.ExampleError as error:
            error = example_columns.ExampleError(first + error.row, error.problem)
            raise _not_of_this_dataset(path, kinds, error) from error
        first += len(some)


def _not_of_this_dataset(path: str, kinds: dict[str, type], error: ValueError) -> BuildError:
    return BuildError(
        f"{path} has not the features {', '.join(kinds)} ({error}). Build the dataset again."
    )


def _image_of_tfrecord(
    plan: PreparedSplit, starts: np.ndarray, stops: np.ndarray, row: int
) -> bytes:
    path, _ = _place(plan, row)
    start, stop = int(starts[row]), int(stops[row])
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            record = file.read(stop - start)
    except OSError as error:
        raise BuildError(f"Shard {path} cannot be read: {error}. Build it again.") from error
    return _image_of(record, f"{path}: record at offset {start}")


class _ArrayRecords:
    """Reads single images of array_record files, from any thread."""

    def __init__(self, plan: PreparedSplit) -> None:
        self._plan = plan
        self._readers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def image(self, row: int) -> bytes:
        """Reads the image of an example."""
        from array_record.python import array_record_module

        path, position = _place(self._plan, row)
        try:
            with self._lock:
                if path not in self._readers:
                    self._readers[path] = array_record_module.ArrayRecordReader(
                        path, "readahead_buffer_size:0"
                    )
                (record,) = self._readers[path].read([position])
        except Exception as error:  # the library has no exceptions of its own
            raise BuildError(f"Shard {path} cannot be read: {error}. Build it again.") from error
        return _image_of(record, f"{path}: record {position}")


def _place(plan: PreparedSplit, row: int) -> tuple[str, int]:
    """Gives the file of an example and its position there."""
    ends = np.cumsum(plan.lengths)
    shard = int(np.searchsorted(ends, row, "right"))
    return plan.paths[shard], row - int(ends[shard] - plan.lengths[shard])


def _image_of(record: bytes, at: str) -> bytes:
    """Gives the image of a serialized example."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record).features.feature[IMAGE].bytes_list.value[0]
    except (DecodeError, LookupError) as error:
        raise BuildError(f"{at} has no image ({error}). Build the dataset again.") from error

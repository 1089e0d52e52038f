"""Labels of a prepared dataset, saved for the next time.

A build knows them and saves them. Where it has not, as for datasets of stock TFDS, records are read
whole, the first time: 1 s of CPU for each GB beside the reading itself (2 cores, images of 107 kB).
To skip the images in TFRecord files takes less when the files are in memory, but a disk that seeks
then reads each label at a place of its own, at some 120 a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagenet_family import progress
from imagenet_family.errors import ImagenetFamilyError
from imagenet_family.examples.table import IMAGE, Column, Ragged
from imagenet_family.shards import formats, saved_labels
from imagenet_family.shards.prepared import PreparedSplit, parse_record
from imagenet_family.shards.shard import unreadable
from imagenet_family.storage.paths import PathLike, absolute

# Bytes of each record, kept with the columns: in some formats they tell where it is. No feature
# has such a name.
_SIZE = "record size"


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
    state = saved_labels.state_of(plan)
    columns = saved_labels.load(folder, plan, state)
    if columns is None:
        columns = _read(plan, show_progress)
        saved_labels.save(folder, plan, state, columns)
    sizes = columns.pop(_SIZE)
    assert isinstance(sizes, np.ndarray)
    return PreparedLabels(columns, _image_reader(plan, sizes))


def save_labels(
    plan: PreparedSplit,
    folder: PathLike,
    columns: Mapping[str, Column],
    record_sizes: NDArray[np.int64],
) -> None:
    """Saves the labels of a split that was built; failing to is only a warning.

    Args:
        plan: The split.
        folder: Where to save them.
        columns: Every feature but the image, in the order of the records.
        record_sizes: int64 (n,), the bytes of each record as planned. If images were converted,
            they are others; then nothing is saved.
    """
    if int(record_sizes.sum()) == plan.num_bytes:
        state = saved_labels.state_of(plan)
        saved_labels.save(absolute(folder), plan, state, {**columns, _SIZE: record_sizes})


def _read(plan: PreparedSplit, show_progress: bool) -> dict[str, Column]:
    """Reads all records, and of each the features but the image."""
    kinds = {name: kind for name, kind in plan.features.items() if name != IMAGE}
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    sizes = []
    whole = plan.with_num_shards(1).shard(0)
    with progress.bytes_bar("Reading labels", plan.num_bytes, enabled=show_progress) as bar:
        for path, position, record in whole.located_records():
            for name, value in parse_record(record, kinds, path, position).items():
                values[name].append(value)
            sizes.append(len(record))
            bar.update(len(record))
    columns = {name: _column(kind, values[name]) for name, kind in kinds.items()}
    return {**columns, _SIZE: np.array(sizes, np.int64)}


def _column(kind: type, values: list[Any]) -> Column:
    if kind is list:
        return Ragged.from_lists(values)
    if kind is str:
        return np.array([value.encode() for value in values], "S")
    return np.array(values, bool if kind is bool else np.int64)


def _image_reader(plan: PreparedSplit, sizes: NDArray[np.int64]) -> Callable[[int], bytes] | None:
    """Gives what reads the image of a row; None if there is no access to single records."""
    ends = np.cumsum(plan.lengths)
    open_records = formats.named(plan.file_format).open_records
    files = []
    for path, length, end in zip(plan.paths, plan.lengths, ends.tolist(), strict=True):
        file = open_records(path, sizes[end - length : end])
        if file is None:
            return None
        files.append(file)

    def image(row: int) -> bytes:
        shard = int(np.searchsorted(ends, row, "right"))
        path, position = plan.paths[shard], row - int(ends[shard] - plan.lengths[shard])
        try:
            record = files[shard](position)
        except ImagenetFamilyError:
            raise
        except Exception as error:  # each format's library has its own exceptions
            raise unreadable(path, error) from error
        found: bytes = parse_record(record, {IMAGE: bytes}, path, position)[IMAGE]
        return found

    return image

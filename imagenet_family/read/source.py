"""Random access to the images of a dataset in their archives, without preparing the dataset."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import operator
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import numpy as np

from imagenet_family.errors import ImageError
from imagenet_family.examples import images
from imagenet_family.examples.table import IMAGE, Examples
from imagenet_family.read.shared_tables import Table

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

TFDS_ORDER = "tfds"
ARCHIVE_ORDER = "archive"

# Just below what glibc's malloc always takes from the system, and gives back to it when freed.
_LARGE_BLOCK = 31 << 20


class Part(NamedTuple):
    """Consecutive elements of a source: those from `start` to `stop` of a split in TFDS's order."""

    table: Table
    start: int
    stop: int


class DataSource(Sequence[dict[str, Any]]):
    """The examples of a split, read from the archives one by one as they are asked for.

    The elements are those of `tfds.data_source` on the prepared dataset: dictionaries with
    `image`, uint8 (height, width, 3), and the other features as bytes, int, bool or list of
    np.int64. Any number of threads may read at once. A pickled source is a few hundred bytes; the
    process that loads it needs neither TensorFlow nor TFDS.

    Made by `imagenet_family.data_source`.
    """

    def __init__(
        self,
        name: str,
        split: str,
        parts: Sequence[Part],
        order: str = TFDS_ORDER,
        decoders: Mapping[str, tfds.decode.Decoder | None] = types.MappingProxyType({}),
    ) -> None:
        """Makes a source.

        Args:
            name: Dataset, config and version, as `by_name` takes it.
            split: What was asked for, for `repr`.
            parts: Where the elements are; at least one.
            order: The order of the elements within each part: `'tfds'` or `'archive'`.
            decoders: What decodes a feature instead of this package; None to leave it encoded.
        """
        self._name = name
        self._split = split
        self._parts = tuple(parts)
        self._order = order
        self._decoders = dict(decoders)
        rows = [part.table.order[part.start : part.stop] for part in parts]
        self._rows = rows if order == TFDS_ORDER else [np.sort(chosen) for chosen in rows]
        # The features are in TFDS's order.
        self._features = sorted([IMAGE, *parts[0].table.examples.columns])
        self._ends = list(itertools.accumulate(len(chosen) for chosen in rows))

    def __reduce__(self) -> tuple[Callable[..., DataSource], tuple[Any, ...]]:
        return DataSource, (self._name, self._split, self._parts, self._order, self._decoders)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(  # type: ignore[override]  # no slices, as in TFDS's own data sources
        self, index: SupportsIndex
    ) -> dict[str, Any]:
        """Reads and decodes one element.

        Raises:
            IndexError: There is no such element.
            ArchiveError: The archive changed or is damaged.
            ImageError: The member is no image, or cannot be decoded.
        """
        table, row = self.locate(index)
        image = table.examples.read_image(table.reader, row)
        example = dict.fromkeys(self._features)
        example[IMAGE] = image if IMAGE in self._decoders else _decode(image, table.examples, row)
        for name, column in table.examples.columns.items():
            if isinstance(column, np.ndarray):
                example[name] = column.item(row)
            else:
                values = column[row]
                example[name] = values.copy() if name in self._decoders else list(values)
        for name, decoder in self._decoders.items():
            if decoder is not None:
                example[name] = decoder.decode_example_np(example[name])
        return example

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[dict[str, Any]]:
        """Reads and decodes several elements, in the order of `indices`; see `__getitem__`."""
        return [self[index] for index in indices]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        decoders = {
            feature: "SkipDecoding" if decoder is None else type(decoder).__name__
            for feature, decoder in self._decoders.items()
        }
        return (
            f"DataSource(name={self._name!r}, split={self._split!r}, order={self._order!r}, "
            f"decoders={decoders})"
        )

    def locate(self, index: SupportsIndex) -> tuple[Table, int]:
        """Tells where an element is: its table, and the row of the table's examples.

        Raises:
            IndexError: There is no such element.
        """
        position, count = operator.index(index), self._ends[-1]
        if not -count <= position < count:
            raise IndexError(f"element {position} of a data source of {count}")
        position %= count
        part = bisect.bisect_right(self._ends, position)
        begin = self._ends[part - 1] if part else 0
        return self._parts[part].table, int(self._rows[part][position - begin])

    def record(self, index: SupportsIndex) -> bytes:
        """Reads one element as a serialized `tf.train.Example`, as in the prepared dataset.

        Raises:
            IndexError: There is no such element.
            ArchiveError: The archive changed or is damaged.
            ImageError: The member is no image.
        """
        table, row = self.locate(index)
        return b"".join(table.examples.read_record(table.reader, table.encoder, row))

    @functools.cached_property
    def info(self) -> tfds.core.DatasetInfo:
        """What TFDS knows of the dataset, such as `features['label'].names`; imports TFDS."""
        from imagenet_family.datasets import by_name

        info: tfds.core.DatasetInfo = by_name.builder(self._name).info
        return info

    @property
    def dataset_info(self) -> tfds.core.DatasetInfo:
        """The same as `info`, by the name that it has in TFDS's own data sources."""
        return self.info


def _decode(image: bytes, examples: Examples, row: int) -> np.ndarray:
    _keep_freed_memory()
    try:
        return images.decode(image)
    except ImageError as error:
        raise ImageError(f"{examples.place(row)}: {error}") from error


@functools.cache
def _keep_freed_memory() -> None:
    """Lets glibc's malloc keep the memory of a batch that is dropped, for the next one.

    Left alone, it gives back whatever is free beyond some 1 MB, and the system then clears the
    pages of the next images again, which takes a fifth as long as decoding them. Freeing a large
    block once, which nobody has to have touched, teaches malloc to keep up to twice as much; a
    `MALLOC_TRIM_THRESHOLD_` that the user has set stays in force. Elsewhere this does nothing.
    """
    with contextlib.suppress(MemoryError):  # then there is nothing to keep
        np.empty(_LARGE_BLOCK, np.uint8)

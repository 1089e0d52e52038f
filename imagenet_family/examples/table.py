"""A split before it is written: where each image lies, and everything else about it.

`Examples` is a table with one row an example, held in NumPy columns so that the 1.28 million of
ImageNet's train split take some 100 MB, travel to other processes cheaply and are saved without
pickle. It is a sequence, and iterating over it in order reads its files from front to back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from imagenet_family.copies import ArchiveIndex, ArchiveReader, SourceFile
from imagenet_family.copies.source_file import described
from imagenet_family.errors import ImageError
from imagenet_family.examples import images, tf_example

IMAGE = "image"
FILE_NAME = "file_name"


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """A column of integer lists, one list a row.

    Attributes:
        values: int64 (total,), all lists one after the other.
        ends: int64 (n,), where each list ends in `values`.
    """

    values: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        """Packs lists of integers."""
        flat = [value for row in lists for value in row]
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        return cls(np.array(flat, np.int64), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> NDArray[np.int64]:
        return self.values[self.ends[row - 1] if row else 0 : self.ends[row]]

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """Gives the lists of the given rows, in that order."""
        lengths = self.ends[rows] - np.where(rows, self.ends[rows - 1], 0)
        ends = np.cumsum(lengths)
        # By how much each list moves, for each of its values.
        shifts = np.repeat(self.ends[rows] - ends, lengths)
        return Ragged(self.values[np.arange(len(shifts)) + shifts], ends)

    def row_sums(self, amounts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sums `amounts`, one for each of `values`, over each row."""
        totals = np.concatenate([[0], np.cumsum(amounts)])
        sums: NDArray[np.int64] = np.diff(totals[np.concatenate([[0], self.ends])])
        return sums


Column = NDArray[Any] | Ragged

Example = tuple[str, dict[str, Any]]
"""Key, and value by feature."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """One split as a picklable sequence of `(key, example)`, read from its files on demand.

    Attributes:
        files: The files that the images are read from.
        file: int32 (n,), which of `files` each image is in.
        offsets: int64 (n,), where it starts there.
        sizes: int64 (n,), its length there, in bytes.
        checks: uint32 (n,), checksum of the header before it.
        columns: All features but the image, by name: `S` (n,) for text, bool or int64 (n,), or
            `Ragged` for lists of integers. `file_name` is always among them.
    """

    files: tuple[SourceFile, ...]
    file: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    checks: NDArray[np.uint32]
    columns: Mapping[str, Column]

    @classmethod
    def from_index(
        cls,
        index: ArchiveIndex,
        columns: Mapping[str, Column],
        rows: NDArray[np.int64] | None = None,
    ) -> Examples:
        """Makes the split of some of the members of a copy.

        Args:
            index: Index of the copy.
            columns: Features of the chosen members; see the class.
            rows: int64 (n,), which members; all of them if None.
        """
        chosen: Any = slice(None) if rows is None else rows
        return cls(
            files=index.files,
            file=index.file[chosen],
            offsets=index.offsets[chosen],
            sizes=index.sizes[chosen],
            checks=index.checks[chosen],
            columns=columns,
        )

    @property
    def source(self) -> str:
        """What messages call the files."""
        return described(self.files)

    @property
    def names(self) -> NDArray[np.bytes_]:
        """The column `file_name`."""
        return cast("NDArray[np.bytes_]", self.columns[FILE_NAME])

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, row: int) -> Example:  # type: ignore[override]  # slices: see `take`
        """Gives `(key, example)`; the image is JPEG bytes and the rest plain Python values."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a split of {len(self)} examples")
        with self.open() as reader:
            row %= len(self)
            return self._example(row, self.read_image(reader, row))

    def __iter__(self) -> Iterator[Example]:
        with self.open() as reader:
            for row, image in enumerate(self._images(reader)):
                yield self._example(row, image)

    def _example(self, row: int, image: bytes) -> Example:
        features = {name: _plain(column[row]) for name, column in self.columns.items()}
        return key_of(self.names[row]).decode(), {IMAGE: image, **features}

    def _images(self, reader: ArchiveReader) -> Iterator[bytes]:
        """Reads all images in order."""
        members = (self.file, self.offsets, self.sizes, self.checks, self.names)
        for row, data in enumerate(reader.read_all(*members)):
            yield self._image(reader, row, data)

    def open(self) -> ArchiveReader:
        """Gives the reader for `read_image`."""
        return ArchiveReader(self.files)

    def read_image(self, reader: ArchiveReader, row: int) -> bytes:
        """Reads one image as RGB or grayscale JPEG.

        Raises:
            ArchiveError: The archive changed or is damaged.
            ImageError: The member is no image.
        """
        place = self.file.item(row), self.offsets.item(row), self.sizes.item(row)
        return self._image(reader, row, reader.read(*place, self.checks.item(row), self.names[row]))

    def _image(self, reader: ArchiveReader, row: int, data: bytes) -> bytes:
        try:
            return images.normalize(data)
        except ImageError as error:
            reader.check_unchanged(self.file.item(row))  # or the image is not to blame
            raise ImageError(
                f"{self.place(row)}: {error}. Compare the archive with the published one, say by "
                "`imagenet-family verify --checksums`, and get it again if it differs."
            ) from error

    def place(self, row: int) -> str:
        """Says in words where an image lies, for messages."""
        source = self.files[self.file[row]].source
        return f"{source}: member {self.names[row].decode()} at offset {self.offsets[row]}"

    def take(self, rows: NDArray[np.int64]) -> Examples:
        """Gives a split of the given rows (int64), in that order, with the files that they name."""
        files, file = self.files, self.file[rows]
        if len(files) > 1 and len(rows):  # a split without rows is still one of these files
            used, numbers = np.unique(file, return_inverse=True)
            files, file = tuple(files[i] for i in used.tolist()), numbers.astype(np.int32)
        columns = {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.columns.items()
        }
        return dataclasses.replace(
            self,
            files=files,
            file=file,
            offsets=self.offsets[rows],
            sizes=self.sizes[rows],
            checks=self.checks[rows],
            columns=columns,
        )

    def record_sizes(self) -> NDArray[np.int64]:
        """Gives each record's size in bytes, int64 (n,), as if no image needed conversion."""
        entries = tf_example.bytes_entry_size(IMAGE, self.sizes)
        for name, column in self.columns.items():
            if isinstance(column, Ragged):
                packed = column.row_sums(tf_example.varint_size(column.values))
                entries = entries + tf_example.ints_entry_size(name, packed)
            elif column.dtype.kind == "S":
                lengths = np.char.str_len(column).astype(np.int64)
                entries = entries + tf_example.bytes_entry_size(name, lengths)
            else:
                packed = tf_example.varint_size(column.astype(np.int64))
                entries = entries + tf_example.ints_entry_size(name, packed)
        return tf_example.delimited_size(entries)

    def records(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Reads and serializes the examples in order, each as `(head, image, tail)`."""
        encoder = self.encoder()
        with self.open() as reader:
            for row, image in enumerate(self._images(reader)):
                yield self._record(encoder, row, image)

    def encoder(self) -> tf_example.RecordEncoder:
        """Makes the encoder for `read_record`."""
        return tf_example.RecordEncoder([*self.columns, IMAGE], IMAGE)

    def read_record(
        self, reader: ArchiveReader, encoder: tf_example.RecordEncoder, row: int
    ) -> tuple[bytes, bytes, bytes]:
        """Reads and serializes one example as `(head, image, tail)`.

        Raises:
            ArchiveError: The archive changed or is damaged.
            ImageError: The member is no image.
        """
        return self._record(encoder, row, self.read_image(reader, row))

    def _record(
        self, encoder: tf_example.RecordEncoder, row: int, image: bytes
    ) -> tuple[bytes, bytes, bytes]:
        values = {name: _wire(column[row]) for name, column in self.columns.items()}
        head, tail = encoder.encode(values, len(image))
        return head, image, tail


def key_of(file_name: bytes) -> bytes:
    """Gives an example's key from its file name, as stock TFDS makes it."""
    return file_name.replace(b"/", b"_")


def _wire(value: Any) -> tf_example.Value:
    if isinstance(value, bytes):
        return value
    return value.tolist() if isinstance(value, np.ndarray) else int(value)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.tolist()

"""A prepared dataset as plans and examples, so that it can be written again in another form.

Any prepared dataset will do, also one that stock TFDS wrote, in any of its file formats.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imagenet_family.errors import BuildError, MissingFileError
from imagenet_family.examples.plan import shard_boundaries
from imagenet_family.examples.table import FILE_NAME, key_of
from imagenet_family.shards import read
from imagenet_family.storage.files import stamp
from imagenet_family.storage.paths import PathLike, absolute, is_local

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


class Piece(NamedTuple):
    """Records `start` to `stop` of one file."""

    path: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class PreparedExamples:
    """Consecutive examples of a prepared split, read on demand, as picklable as `Examples`.

    Attributes:
        pieces: Where they are, in order.
        file_format: A value of `tfds.core.FileFormat`.
        features: The type of each feature: `bytes` (of an image), `str`, `int`, `bool`, or `list`
            of integers.
    """

    pieces: tuple[Piece, ...]
    file_format: str
    features: Mapping[str, type]

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Gives `(key, example)` as `Examples` does.

        Raises:
            BuildError: A file is missing, damaged, or not of this dataset.
        """
        for path, start, stop in self.pieces:
            records = read.read_records(path, self.file_format)
            position = start
            for record in itertools.islice(records, start, stop):
                try:
                    example = self._parse(record)
                except (ValueError, LookupError) as error:
                    raise BuildError(
                        f"{path}: record {position} has not the features "
                        f"{', '.join(self.features)} ({error}). Build the dataset again."
                    ) from error
                yield key_of(example[FILE_NAME].encode()).decode(), example
                position += 1
            if position < stop:
                raise BuildError(
                    f"{path}: expected at least {stop} records, as dataset_info.json says, found "
                    f"{position}. Build the dataset again."
                )

    def _parse(self, record: bytes) -> dict[str, Any]:
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            found = tf_example_pb2.Example.FromString(record).features.feature
        except DecodeError as error:
            raise ValueError(str(error)) from error
        example = {}
        for name, kind in self.features.items():
            if name not in found:
                raise LookupError(f"{name} is missing")
            feature = found[name]
            if kind is list:
                example[name] = list(feature.int64_list.value)
            elif kind is bytes:
                example[name] = feature.bytes_list.value[0]
            elif kind is str:
                example[name] = feature.bytes_list.value[0].decode()
            else:
                example[name] = kind(feature.int64_list.value[0])
        return example


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """The plan of a split that is read from a prepared dataset.

    Attributes:
        split: Name of the split.
        paths: Its files.
        lengths: Number of records in each.
        boundaries: Where the shards to be written begin and end: num_shards + 1 positions.
        num_bytes: Bytes of all records.
        file_format: A value of `tfds.core.FileFormat`.
        features: See `PreparedExamples`.
    """

    split: str
    paths: tuple[str, ...]
    lengths: tuple[int, ...]
    boundaries: tuple[int, ...]
    num_bytes: int
    file_format: str
    features: Mapping[str, type]

    @property
    def num_shards(self) -> int:
        """Number of shards to be written."""
        return len(self.boundaries) - 1

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return self.boundaries[-1]

    def shard(self, index: int) -> PreparedExamples:
        """Gives the examples of one shard to be written."""
        start, stop = self.boundaries[index : index + 2]
        pieces, first = [], 0
        for path, length in zip(self.paths, self.lengths, strict=True):
            inside = range(max(start - first, 0), min(stop - first, length))
            if inside:
                pieces.append(Piece(path, inside.start, inside.stop))
            first += length
        return PreparedExamples(tuple(pieces), self.file_format, self.features)

    def with_num_shards(self, num_shards: int) -> PreparedSplit:
        """Gives the same split cut into another number of shards.

        Raises:
            BuildError: There are more shards than examples.
        """
        if num_shards > self.num_examples:
            raise BuildError(
                f"Split {self.split!r} has {self.num_examples} examples, too few for {num_shards} "
                "shards: ask for fewer shards."
            )
        boundaries = tuple(shard_boundaries(self.num_examples, num_shards))
        return dataclasses.replace(self, boundaries=boundaries)


def prepared_splits(builder: tfds.core.DatasetBuilder) -> dict[str, PreparedSplit]:
    """Gives the splits of a prepared dataset, each in the shards that it has.

    Raises:
        MissingFileError: The dataset is not prepared.
    """
    if not builder.is_prepared():
        raise MissingFileError(
            f"{builder.data_path} holds no prepared dataset. Build it, say with data_dir where it "
            "is, or export from the archives."
        )
    features = {name: _type(feature) for name, feature in builder.info.features.items()}
    return {
        name: PreparedSplit(
            split=name,
            paths=tuple(map(os.fspath, info.filepaths)),
            lengths=tuple(info.shard_lengths),
            boundaries=tuple(itertools.accumulate(info.shard_lengths, initial=0)),
            num_bytes=int(info.num_bytes),
            file_format=builder.info.file_format.value,
            features=features,
        )
        for name, info in builder.info.splits.items()
    }


def skips_images(file_format: str, path: PathLike) -> bool:
    """Tells whether records of a file can be read without reading the images in them."""
    return file_format == "tfrecord" and is_local(path)


def _type(feature: tfds.features.FeatureConnector) -> type:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return bytes
    if isinstance(feature, tfds.features.Text):
        return str
    if isinstance(feature, tfds.features.Sequence):
        return list
    return bool if feature.np_dtype is np.bool_ else int


def identity(plans: Iterable[PreparedSplit]) -> str:
    """Gives a digest that differs when the shards to be written could.

    Raises:
        BuildError: A file is missing.
    """
    sha = hashlib.sha256()
    for plan in plans:
        sha.update(json.dumps([plan.split, plan.boundaries, shard_stamps(plan)]).encode())
    return sha.hexdigest()


def shard_stamps(plan: PreparedSplit) -> list[tuple[str, int, int | str]]:
    """Gives by what the shards of a split are recognised without reading them.

    Raises:
        BuildError: A shard is missing.
    """
    stamps = []
    for path in plan.paths:
        try:
            stamps.append((absolute(path), *stamp(path)))
        except OSError as error:
            raise BuildError(
                f"Shard {path} cannot be read: {error}. Build the dataset again."
            ) from error
    return stamps

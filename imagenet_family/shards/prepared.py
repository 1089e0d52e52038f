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
from imagenet_family.shards.shard import read_records
from imagenet_family.storage.files import stamp
from imagenet_family.storage.paths import absolute

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


class Piece(NamedTuple):
    """Records `start` to `stop` of a file that has `length` of them."""

    path: str
    start: int
    stop: int
    length: int


@dataclasses.dataclass(frozen=True)
class PreparedExamples:
    """Consecutive examples of a prepared split, read on demand, as picklable as `Examples`.

    Attributes:
        pieces: Where they are, in order.
        file_format: A value of `tfds.core.FileFormat`.
        features: See `parse_record`.
    """

    pieces: tuple[Piece, ...]
    file_format: str
    features: Mapping[str, type]

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Gives `(key, example)` as `Examples` does.

        Raises:
            BuildError: A file is missing, damaged, or not of this dataset.
        """
        for path, position, record in self.located_records():
            example = parse_record(record, self.features, path, position)
            yield key_of(example[FILE_NAME].encode()).decode(), example

    def records(self) -> Iterator[tuple[bytes, ...]]:
        """Gives the examples serialized, as they are in the files.

        Raises:
            BuildError: A file is missing or damaged.
        """
        for _, _, record in self.located_records():
            yield (record,)

    def located_records(self) -> Iterator[tuple[str, int, bytes]]:
        """Gives the serialized examples, each with its file and its position there.

        Raises:
            BuildError: A file is missing or damaged.
        """
        for path, start, stop, length in self.pieces:
            records = read_records(path, self.file_format)
            found = start
            for record in itertools.islice(records, start, stop):
                yield path, found, record
                found += 1
            fewer = found < stop
            if fewer or (stop == length and next(records, None) is not None):
                raise BuildError(
                    f"{path}: expected {length} records, as dataset_info.json says, found "
                    f"{'fewer' if fewer else 'more'}. Build the dataset again."
                )


def parse_record(
    record: bytes, features: Mapping[str, type], path: str, position: int
) -> dict[str, Any]:
    """Gives features of a serialized example as plain values.

    Args:
        record: The example.
        features: The type of each feature that is wanted: `bytes` (of an image), `str`, `int`,
            `bool`, or `list` of integers.
        path: The file it is from, for messages.
        position: Where it stands in the file.

    Raises:
        BuildError: It has not these features.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        found = tf_example_pb2.Example.FromString(record).features.feature
        return {name: _value(found, name, kind) for name, kind in features.items()}
    except (DecodeError, ValueError, LookupError) as error:
        raise BuildError(
            f"{path}: record {position} has not the features {', '.join(features)} ({error}). "
            "Build the dataset again."
        ) from error


def _value(found: Any, name: str, kind: type) -> Any:
    if name not in found:  # protobuf would make an empty one
        raise LookupError(f"{name} is missing")
    if kind is list:
        return list(found[name].int64_list.value)
    of_bytes = kind in (bytes, str)
    values = found[name].bytes_list.value if of_bytes else found[name].int64_list.value
    (value,) = values
    return value.decode() if kind is str else kind(value)


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
        features: See `parse_record`.
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
                pieces.append(Piece(path, inside.start, inside.stop, length))
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


def _type(feature: tfds.features.FeatureConnector) -> type:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
        return bytes
    if isinstance(feature, tfds.features.Text):
        return str
    if isinstance(feature, tfds.features.Sequence):
        return list
    return bool if feature.np_dtype is np.bool_ else int


def source_digest(plans: Iterable[PreparedSplit]) -> str:
    """Gives a digest of splits that differs when the shards to be written of them could.

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
    stamps: list[tuple[str, int, int | str]] = []
    for path in plan.paths:
        try:
            stamps.append((absolute(path), *stamp(path)))
        except OSError as error:
            raise BuildError(
                f"Shard {path} cannot be read: {error}. Build the dataset again."
            ) from error
    return stamps

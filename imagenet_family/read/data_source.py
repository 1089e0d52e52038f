"""Opens datasets for random access in their archives: the part that needs TFDS."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from imagenet_family import tfds_internals
from imagenet_family.build.options import shard_counter
from imagenet_family.datasets import by_name
from imagenet_family.errors import UsageError
from imagenet_family.examples.lazy import LazyMapping
from imagenet_family.examples.plan import hash_order, shard_boundaries
from imagenet_family.read.shared_tables import Table
from imagenet_family.read.source import ARCHIVE_ORDER, TFDS_ORDER, DataSource, Part
from imagenet_family.storage.paths import PathLike


def data_source(
    name: by_name.Name,
    *,
    split: Any = None,
    manual_dir: PathLike | None = None,
    download_dir: PathLike | None = None,
    decoders: Mapping[str, tfds.decode.Decoder] | None = None,
    order: str = TFDS_ORDER,
    **builder_kwargs: Any,
) -> Any:
    """Opens a dataset for random access in its archives; nothing has to be prepared.

    The archives' indexes are made, or taken from where they were saved. The result is used as that
    of `tfds.data_source` is: by grain, torch and plain loops.

    Args:
        name: Dataset, config and version, such as `'imagenet2012_subset/1pct'`; or a dataset of
            your own: its builder, the class of it, or the Python file that has the class, such as
            `'path/to/file.py'`, also with config and version.
        split: As in `tfds.data_source`: `'train'`, `'train[:10%]+validation'`, a
            `tfds.core.ReadInstruction`, a list or dictionary of these; None for all splits.
        manual_dir: Where the archives are; `<download_dir>/manual` if None.
        download_dir: Where downloads and indexes are kept; `<data_dir>/downloads` if None.
        decoders: What decodes some features instead; `{'image': tfds.decode.SkipDecoding()}`
            gives the bytes of the JPEG, and for a feature that is a list, int64 (n,).
        order: `'tfds'` for the order of the prepared dataset; `'archive'` for the same elements
            in the order of the archive, in which disks that seek read much faster.
        **builder_kwargs: `data_dir`, `config`, `version`, `verify_checksums`; see `tfds.builder`.

    Returns:
        A `DataSource`, or a list or dictionary of them if `split` is one.

    Raises:
        ImagenetFamilyError: An argument cannot be used, or an archive or a label file is missing
            or damaged.
    """
    if order not in (TFDS_ORDER, ARCHIVE_ORDER):
        raise UsageError(f"order is {order!r}; it can be {TFDS_ORDER!r} or {ARCHIVE_ORDER!r}.")
    builder = by_name.builder(name, **builder_kwargs)
    reference = by_name.reference(builder)
    prepared = _prepare_decoders(decoders or {}, builder.info.features)
    splits = builder.open_splits(manual_dir=manual_dir, download_dir=download_dir)
    num_shards = shard_counter()

    def split_info(split_name: str) -> tfds.core.SplitInfo:
        examples = splits[split_name]
        num_bytes = int(examples.record_sizes().sum())
        shards = num_shards(num_bytes, len(examples))
        lengths = np.diff(shard_boundaries(len(examples), shards)).tolist()
        return tfds.core.SplitInfo(
            name=split_name, shard_lengths=lengths, num_bytes=num_bytes, filename_template=None
        )

    infos = LazyMapping(splits, split_info)

    @functools.cache
    def table(split_name: str) -> Table:
        examples = splits[split_name]
        order = hash_order(split_name, examples)
        name = f"{reference}/{split_name}"
        return Table(examples, order, builder.index_dir(download_dir), name)

    def source(instruction: Any) -> DataSource:
        parts = [
            Part(table(split_name), start, stop)
            for split_name, start, stop in tfds_internals.absolute_slices(instruction, infos)
        ]
        return DataSource(reference, str(instruction), parts, order, prepared)

    return map_tree(source, {name: name for name in splits} if split is None else split)


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """Applies a function to each leaf of nested lists, tuples and dictionaries."""
    if isinstance(tree, Mapping):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tree(function, value) for value in tree)
    return function(tree)


def _prepare_decoders(
    decoders: Mapping[str, tfds.decode.Decoder], features: tfds.features.FeaturesDict
) -> dict[str, tfds.decode.Decoder | None]:
    if not isinstance(decoders, Mapping):
        raise UsageError(
            f"decoders is a {type(decoders).__name__}; it has to be a dictionary of "
            "tfds.decode.Decoder by feature."
        )
    prepared: dict[str, tfds.decode.Decoder | None] = {}
    for name, decoder in decoders.items():
        if name not in features:
            raise UsageError(f"There is no feature {name!r}; there are {', '.join(features)}.")
        if isinstance(decoder, tfds.decode.SkipDecoding):
            prepared[name] = None
        elif not isinstance(decoder, tfds.decode.Decoder):
            raise UsageError(f"The decoder of {name!r} is {decoder!r}, not a tfds.decode.Decoder.")
        elif isinstance(features[name], tfds.features.Sequence):
            raise UsageError(f"{name!r} is a list: its only decoder is tfds.decode.SkipDecoding().")
        else:
            decoder.setup(feature=features[name])
            prepared[name] = decoder
    return prepared

"""The archives as a `tf.data.Dataset`, without preparing the dataset."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from imagenet_family.datasets import by_name
from imagenet_family.errors import UsageError
from imagenet_family.read.data_source import data_source, map_tree
from imagenet_family.read.source import DataSource
from imagenet_family.storage.paths import PathLike

# Records that one call into Python reads: enough that the call itself does not count.
_READ_TOGETHER = 32


def as_dataset(
    name: by_name.Name,
    *,
    split: Any = None,
    manual_dir: PathLike | None = None,
    download_dir: PathLike | None = None,
    batch_size: int | None = None,
    decoders: Mapping[str, tfds.decode.Decoder] | tfds.decode.PartialDecoding | None = None,
    as_supervised: bool = False,
    order: str = "tfds",
    **builder_kwargs: Any,
) -> Any:
    """Opens a dataset in its archives as `tf.data.Dataset`, with the elements of `tfds.load`.

    Images are read and decoded in parallel, and the elements always come in the order of
    `data_source`, which `tfds.load` gives with `ReadConfig(interleave_cycle_length=1)`. The dataset
    reads through this process: it cannot be saved or sent to a `tf.data` service.

    Args:
        name: See `imagenet_family.data_source`.
        split: See `imagenet_family.data_source`.
        manual_dir: See `imagenet_family.data_source`.
        download_dir: See `imagenet_family.data_source`.
        batch_size: Elements in a batch, images padded to the largest; None for no batches.
        decoders: As in `tfds.load`, `tfds.decode.PartialDecoding` among them.
        as_supervised: Whether elements are `(input, label)` instead of dictionaries.
        order: See `imagenet_family.data_source`.
        **builder_kwargs: See `imagenet_family.data_source`.

    Returns:
        A `tf.data.Dataset`, or a list or dictionary of them if `split` is one.

    Raises:
        ImagenetFamilyError: As `imagenet_family.data_source`. What is wrong with an image or
            archive later, TensorFlow reports as a `tf.errors.OpError` with the same message.
    """
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise UsageError(f"batch_size is {batch_size!r}; it has to be a positive number.")
    sources = data_source(
        name,
        split=split,
        manual_dir=manual_dir,
        download_dir=download_dir,
        order=order,
        **builder_kwargs,
    )
    return map_tree(
        functools.partial(
            _dataset, batch_size=batch_size, decoders=decoders, as_supervised=as_supervised
        ),
        sources,
    )


def _dataset(
    source: DataSource, *, batch_size: int | None, decoders: Any, as_supervised: bool
) -> tf.data.Dataset:
    features = source.info.features
    if isinstance(decoders, tfds.decode.PartialDecoding):
        features = decoders.extract_features(features)
        decoders = decoders.decoders

    def read(indices: np.ndarray) -> np.ndarray:
        return np.array([source.record(index) for index in indices], object)

    def read_in_graph(indices: tf.Tensor) -> tf.Tensor:
        records = tf.numpy_function(read, [indices], tf.string, stateful=False)
        records.set_shape([None])
        return records

    dataset = tf.data.Dataset.range(len(source)).batch(_READ_TOGETHER)
    dataset = dataset.map(read_in_graph, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(source)))
    dataset = dataset.map(
        functools.partial(features.deserialize_example, decoders=decoders),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    if batch_size:
        dataset = dataset.padded_batch(batch_size)
    if as_supervised:
        keys = source.info.supervised_keys
        dataset = dataset.map(lambda example: tuple(example[key] for key in keys))
    return dataset.prefetch(tf.data.AUTOTUNE)

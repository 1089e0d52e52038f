"""`imagenet_family.as_dataset` gives what `tfds.load` gives of the prepared dataset."""

import data_source_lib
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from imagenet_family.errors import UsageError

VALIDATION = "ILSVRC2012_img_val.tar"
# By default TFDS takes 16 records of each shard in turn.
IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)


def assert_same(mine, theirs):
    assert mine.element_spec == theirs.element_spec
    assert mine.cardinality() == theirs.cardinality()
    for one, other in zip(mine.as_numpy_iterator(), theirs.as_numpy_iterator(), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", data_source_lib.NAMES)
def test_every_element_equals_the_prepared_dataset(datasets, name):
    prepared = datasets.prepared(name, "tfrecord").as_dataset(read_config=IN_ORDER)
    mine = datasets.as_dataset(name)
    assert list(mine) == list(prepared)
    for split in prepared:
        assert_same(mine[split], prepared[split])


@pytest.mark.parametrize(
    "options",
    [
        {"decoders": {"image": tfds.decode.SkipDecoding()}},
        {"decoders": tfds.decode.PartialDecoding({"image": True, "unclear_multi_labels": True})},
        {"as_supervised": True},
        {"batch_size": 7},
        {"batch_size": 7, "as_supervised": True},
    ],
    ids=data_source_lib.case_name,
)
def test_options_of_tfds(datasets, options):
    prepared = datasets.prepared("imagenet2012_multilabel", "tfrecord")
    split = "validation[:40]+imagenet_m"
    mine = datasets.as_dataset("imagenet2012_multilabel", split, **options)
    assert_same(mine, prepared.as_dataset(split=split, read_config=IN_ORDER, **options))


def test_the_order_is_the_same_every_time(datasets):
    dataset = datasets.as_dataset("imagenet2012", "train", order="archive")
    runs = [[e["file_name"] for e in dataset.as_numpy_iterator()] for _ in range(3)]
    source = datasets.open("imagenet2012", "train", order="archive")
    assert runs == 3 * [[e["file_name"] for e in source]]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8"])
def test_batches_that_cannot_be(datasets, batch_size):
    with pytest.raises(UsageError, match="batch_size"):
        datasets.as_dataset("imagenet2012", "train", batch_size=batch_size)


def test_an_archive_that_is_replaced(tmp_path):
    own = data_source_lib.Datasets(tmp_path)
    dataset = own.as_dataset("imagenet2012", "validation")
    (own.archives / VALIDATION).write_bytes(b"")
    with pytest.raises(tf.errors.OpError, match="changed since it was indexed"):
        next(iter(dataset))

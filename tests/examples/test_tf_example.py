"""The wire format against protobuf's own serializer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from imagenet_family.examples import tf_example

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
VALUES = st.one_of(st.binary(max_size=300), INT64, st.lists(INT64, max_size=80))


@given(st.dictionaries(NAMES, VALUES, max_size=5), NAMES, st.binary(max_size=20_000))
def test_protobuf_reads_what_is_written(values, image_name, image):
    values.pop(image_name, None)
    head, tail = tf_example.RecordEncoder([*values, image_name], image_name).encode(
        values, len(image)
    )
    record = head + image + tail
    example = tf_example_pb2.Example.FromString(record)
    feature = example.features.feature
    assert set(feature) == {*values, image_name}
    assert list(feature[image_name].bytes_list.value) == [image]
    for name, value in values.items():
        if isinstance(value, bytes):
            assert list(feature[name].bytes_list.value) == [value]
        else:
            assert feature[name].WhichOneof("kind") == "int64_list"
            expected = [value] if isinstance(value, int) else value
            assert list(feature[name].int64_list.value) == expected
    # Nothing is written that protobuf would not write: only the order of the map is free.
    assert len(example.SerializeToString()) == len(record)


@given(st.lists(INT64, min_size=1))
def test_varint_size_is_the_size_of_the_varint(values):
    sizes = tf_example.varint_size(np.array(values, np.int64))
    assert sizes.tolist() == [len(tf_example.varint(value)) for value in values]


def test_features_stand_in_the_order_of_their_names():
    encoder = tf_example.RecordEncoder(["label", "image", "file_name"], "image")
    head, tail = encoder.encode({"label": 7, "file_name": b"n.JPEG"}, 3)
    record = head + b"JPG" + tail
    assert record.index(b"file_name") < record.index(b"image") < record.index(b"label")

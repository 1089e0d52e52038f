"""Names of images: published ones pass, what surely is one becomes it, others are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenet_family.datasets import image_names
from imagenet_family.errors import LabelError

KINDS = {
    "train": (image_names.TRAIN, [b"n01440764_10026.JPEG", b"n15075141_1.JPEG"]),
    "validation": (image_names.VALIDATION, [b"ILSVRC2012_val_00000001.JPEG"]),
    "test": (image_names.TEST, [b"ILSVRC2012_test_00100000.JPEG"]),
}


def place(row):
    return f"x.tar, row {row}"


def array(names):
    return np.array(names, "S")


@pytest.mark.parametrize("kind", KINDS)
def test_published_names_pass_untouched(kind):
    naming, names = KINDS[kind]
    names = array(names)
    assert naming.published(names, place) is names


@pytest.mark.parametrize(
    ("kind", "name", "published"),
    [
        ("train", b"n01440764_10026_n01440764.JPEG", b"n01440764_10026.JPEG"),
        ("train", b"n01440764\\n01440764_1.JPEG", b"n01440764_1.JPEG"),
        ("train", b"train\\n01440764\\n01440764_1_n01440764.JPEG", b"n01440764_1.JPEG"),
        ("validation", b"ILSVRC2012_val_00000293_n01440764.JPEG", b"ILSVRC2012_val_00000293.JPEG"),
        ("validation", b"val\\ILSVRC2012_val_00000293.JPEG", b"ILSVRC2012_val_00000293.JPEG"),
        ("test", b"test\\ILSVRC2012_test_00000001.JPEG", b"ILSVRC2012_test_00000001.JPEG"),
    ],
)
def test_what_is_surely_a_published_name_becomes_it(kind, name, published):
    naming, names = KINDS[kind]
    found = naming.published(array([*names, name]), place)
    assert found.tolist() == [*names, published]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("train", b"x.jpg"),
        ("train", b"n01440764_10026.jpg"),
        ("train", b"n01440764_10026.JPEG.JPEG"),
        ("train", b"n01440764_10026_n01443537.JPEG"),  # another class than its own
        ("train", b"n01440764_.JPEG"),
        ("train", b"n01440764_1x.JPEG"),
        ("train", b"n0144076_10026.JPEG"),
        ("train", b"n014407645_10026.JPEG"),
        ("train", b"n01440764-10026.JPEG"),
        ("train", b"N01440764_10026.JPEG"),
        ("train", b"ILSVRC2012_val_00000001.JPEG"),
        ("train", b"10026.JPEG"),
        ("train", b".JPEG"),
        ("validation", b"n01440764_10026.JPEG"),
        ("validation", b"ILSVRC2012_test_00000001.JPEG"),
        ("validation", b"ILSVRC2012_val_00000001.jpeg"),
        ("test", b"ILSVRC2012_val_00000001.JPEG"),
        ("test", b"ILSVRC2012_test_.JPEG"),
        ("test", b"00000001.JPEG"),
    ],
)
def test_any_other_name_is_refused_and_named(kind, name):
    naming, names = KINDS[kind]
    with pytest.raises(LabelError, match=r"x.tar, row \d: expected .* \(1 of \d images") as error:
        naming.published(array([*names, name]), place)
    assert repr(name.decode()) in str(error.value) and naming.example in str(error.value)
    with pytest.raises(LabelError, match=r"x.tar, row 0: .* \(4 of 4 images.*, …"):
        naming.published(array([name] * 4), place)


@given(st.lists(st.binary(max_size=30).map(lambda name: name.replace(b"\0", b"x")), min_size=1))
def test_plain_is_what_the_pattern_says(names):
    import re

    names = array([*names, b"n01440764_7.JPEG"])
    pattern = re.compile(rb"n\d{8}_\d+\.JPEG", re.DOTALL)
    expected = [bool(pattern.fullmatch(name)) for name in names.tolist()]
    assert image_names.TRAIN._are_plain(names).tolist() == expected

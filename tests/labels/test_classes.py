"""The class list, the class names and the validation labels."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imagenet_family.errors import LabelError
from imagenet_family.labels import classes


def _package_folder(name: str) -> Path:
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


def _tfds_lines(name: str) -> list[str]:
    folder = _package_folder("tensorflow_datasets") / "datasets" / "imagenet2012"
    return (folder / name).read_text().split()


def test_wnids_equal_tfds():
    assert list(classes.wnids()) == _tfds_lines("labels.txt")


def test_wnids_are_ascending_and_map_to_their_position():
    wnids = classes.wnids()
    assert len(wnids) == len(set(wnids)) == classes.NUM_CLASSES
    assert list(wnids) == sorted(wnids)
    assert wnids[0] == "n01440764"
    assert wnids[999] == "n15075141"
    assert [classes.wnid_to_id()[wnid] for wnid in wnids] == list(range(1000))


def test_wnid_to_id_cannot_be_changed():
    with pytest.raises(TypeError):
        classes.wnid_to_id()["n01440764"] = 5


def test_validation_labels_equal_tfds():
    wnids = classes.wnids()
    found = classes.validation_labels()
    assert found.dtype == np.int64
    assert found.shape == (50_000,)
    assert [wnids[i] for i in found] == _tfds_lines("validation_labels.txt")
    assert not found.flags.writeable


@pytest.mark.torch  # which timm needs
def test_class_names_equal_wordnet_in_timm():
    info = _package_folder("timm") / "data" / "_info"
    lines = (info / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    lemmas = dict(line.split("\t") for line in lines)
    assert list(classes.class_names()) == [lemmas[wnid] for wnid in classes.wnids()]


def test_class_names_spot_checks():
    names = classes.class_names()
    assert names[0] == "tench, Tinca tinca"
    assert names[134] == names[517] == "crane"
    assert all(re.fullmatch(r"[!-~]+( [!-~]+)*", name) for name in names)


def test_validation_labels_for_the_whole_archive_in_any_order():
    names = classes.validation_image_names()
    order = np.random.default_rng(0).permutation(len(names))
    np.testing.assert_array_equal(
        classes.validation_labels_for(names[order]), classes.validation_labels()[order]
    )


def test_validation_labels_for_equals_the_rule_of_stock_tfds_on_consecutive_images():
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (7, 2, 1, 3, 6, 5, 4)]
    stock = dict(zip(sorted(names), classes.validation_labels().tolist(), strict=False))
    assert classes.validation_labels_for(names).tolist() == [stock[name] for name in names]


def test_validation_labels_for_a_part_of_the_archive_go_by_the_name():
    names = np.array(["ILSVRC2012_val_00050000.JPEG", "ILSVRC2012_val_00000500.JPEG"])
    expected = classes.validation_labels()[[49_999, 499]]
    np.testing.assert_array_equal(classes.validation_labels_for(names), expected)
    np.testing.assert_array_equal(classes.validation_labels_for(names.astype("S")), expected)


def test_validation_labels_for_nothing():
    found = classes.validation_labels_for([])
    assert found.shape == (0,)
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    "stranger",
    [
        "ILSVRC2012_val_00000000.JPEG",
        "ILSVRC2012_val_00050001.JPEG",
        "ILSVRC2012_val_0000001.JPEG",
        "ILSVRC2012_val_00000001.JPEG.txt",
        "ILSVRC2012_val_00000001.jpeg",
        "./ILSVRC2012_val_00000001.JPEG",
        "val",
        "",
        "ünïcödé",
    ],
)
def test_a_name_that_is_no_validation_image(stranger):
    with pytest.raises(LabelError, match=r"1 of 2 names.*" + re.escape(repr(stranger))):
        classes.validation_labels_for(["ILSVRC2012_val_00000002.JPEG", stranger])


def test_a_name_that_is_not_text_of_any_encoding():
    with pytest.raises(LabelError, match="1 of 1 names"):
        classes.validation_labels_for(np.array([b"\xff\xfe"]))


def test_many_strangers_are_counted_and_a_few_are_named():
    with pytest.raises(LabelError, match=r"3,000 of 3,000 names.*'n0', 'n1'.*…") as error:
        classes.validation_labels_for([f"n{i}" for i in range(3000)])
    assert len(str(error.value)) < 500


def test_a_name_that_occurs_twice():
    name = "ILSVRC2012_val_00000002.JPEG"
    with pytest.raises(LabelError, match=f"more than once: '{name}'"):
        classes.validation_labels_for([name, "ILSVRC2012_val_00000001.JPEG", name])


@pytest.mark.parametrize("names", [[1, 2], [["a"], ["b"]], "ILSVRC2012_val_00000001.JPEG"])
def test_names_of_a_wrong_shape_or_type(names):
    with pytest.raises(LabelError, match="expected a one-dimensional list of names"):
        classes.validation_labels_for(names)


def test_labels_are_read_without_tensorflow():
    code = (
        "import sys; from imagenet_family.labels import classes; classes.wnids();"
        " classes.validation_labels(); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

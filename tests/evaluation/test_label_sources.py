"""Where labels come from: archives, data sources and this package. Names of datasets."""

import tarfile

import evaluation_lib
import numpy as np
import pytest

import imagenet_family
from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError, MissingFileError, UsageError
from imagenet_family.labels.classes import validation_image_names, validation_labels

NAMES = evaluation_lib.NAMES


def test_labels_are_those_of_the_family(models):
    by_title = {split.title: split for split in models.splits}
    val = by_title["imagenet2012 validation"].labels
    assert set(val.file_name) == set(models.family.val)
    published = dict(
        zip([n.decode() for n in validation_image_names()], validation_labels(), strict=True)
    )
    assert val.label.tolist() == [published[name] for name in val.file_name]
    real = by_title["imagenet2012_real validation"].labels
    for row, name in enumerate(real.file_name):
        assert list(real.real_label.of(row)) == models.family.real[int(name[15:23]) - 1]
    v2 = by_title["imagenet_v2/topimages test"].labels
    assert set(v2.file_name) == set(models.family.v2["topimages"])
    assert all(
        name.split("/")[0] == str(label) for name, label in zip(v2.file_name, v2.label, strict=True)
    )


@pytest.mark.parametrize("number", range(7))
def test_labels_of_a_data_source(models, number):
    split = models.splits[number]
    source = imagenet_family.data_source(
        split.dataset, split=f"{split.split}[5:]", **models.options()
    )
    labels = evaluation.labels_of(source)
    assert labels.file_name == tuple(element["file_name"].decode() for element in source)
    row_of = {name: row for row, name in enumerate(split.labels.file_name)}
    rows = [row_of[name] for name in labels.file_name]
    assert np.array_equal(labels.label, split.labels.label[rows])
    if split.labels.real_label is not None:
        real = [labels.real_label.of(row) for row in range(len(rows))]
        assert real == [split.labels.real_label.of(row) for row in rows]


def test_a_test_split_has_no_labels(models):
    source = imagenet_family.data_source("imagenet2012", split="test", **models.options())
    with pytest.raises(EvaluationError, match="test split have the label -1"):
        evaluation.labels_of(source)
    empty = imagenet_family.data_source("imagenet2012", split="test[:0]", **models.options())
    with pytest.raises(EvaluationError, match="Labels need"):
        evaluation.labels_of(empty)


def test_no_image_is_read_for_labels(models, tmp_path):
    """Every byte of every image is overwritten; the labels stay the same."""
    folder = tmp_path / "archives"
    folder.mkdir()
    for path in models.archives.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    archive = folder / "ILSVRC2012_img_val.tar"
    with tarfile.open(archive) as tar, archive.open("r+b") as file:
        for member in tar.getmembers():
            file.seek(member.offset_data)
            file.write(b"\xff" * member.size)
    names = NAMES[1:]
    blank = evaluation.read_splits(
        names, manual_dir=folder, data_dir=tmp_path / "data", verify_checksums=False
    )
    whole = [split for split in models.splits if split.dataset in names]
    for mine, theirs in zip(blank, whole, strict=True):
        assert mine.labels.file_name == theirs.labels.file_name
        assert np.array_equal(mine.labels.label, theirs.labels.label)


def test_published_labels_need_no_files(tmp_path):
    for name in ("imagenet2012", "imagenet2012_subset"):
        (split,) = evaluation.read_splits(name, data_dir=tmp_path)
        assert split.image is None
        assert split.origin == "the published labels"
        assert split.labels.file_name[0] == "ILSVRC2012_val_00000001.JPEG"
        assert np.array_equal(split.labels.label, validation_labels())
    with pytest.raises(MissingFileError, match=r"ILSVRC2012_img_val\.tar"):
        evaluation.read_splits("imagenet2012", data_dir=tmp_path, manual_dir=tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mnist", "no dataset 'mnist'"),
        ("imagenet_v2/nothing", "no config 'nothing'"),
        ("imagenet2012:1.0.0", "cannot be opened"),
        ("imagenet2012:5", "cannot be opened"),
        (["imagenet_v2", "imagenet_v2/topimages"], "named twice"),
        ([], "Name a dataset"),
    ],
)
def test_names_that_cannot_be_used(models, names, message):
    with pytest.raises(UsageError, match=message):
        evaluation.read_splits(names, **models.options())

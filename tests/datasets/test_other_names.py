"""Copies whose images or archives have other names: the published dataset, or a refusal."""

import hashlib
import json
import shutil
import tarfile
import types

import parity
import pytest
from command_lib import assert_nothing_prepared, build, said

from imagenet_family import cli
from imagenet_family.datasets import ilsvrc
from imagenet_family.errors import MissingFileError

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
TEST = "ILSVRC2012_img_test.tar"
FAMILY = {"train": 60, "val": 40, "test": 8, "v2": 10}


def write_tar(path, members):
    from archives_lib import fake

    path.write_bytes(fake.tar_bytes(list(members), tarfile.GNU_FORMAT))


def copy_of(family, folder, *, train=None, val=None, test=None):
    """Makes manual_dir anew, with other names in some of the archives."""
    shutil.copytree(family[1], folder)
    if train:
        members = (
            (train(wnid, name), data)
            for wnid, images in family[0].train.items()
            for name, data in images.items()
        )
        write_tar(folder / TRAIN, members)
    if val:
        write_tar(folder / VAL, ((val(name), data) for name, data in family[0].val.items()))
    if test:
        write_tar(folder / TEST, ((test(name), data) for name, data in family[0].test.items()))
    return folder


def digests(builder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in builder.data_path.iterdir()
        if "tfrecord" in path.name
    }


def with_wnid(name):
    """As Hugging Face names the images of validation, by any wnid: it is not looked at."""
    return name.replace(".JPEG", "_n01440764.JPEG")


COPIES = {
    "Hugging Face": {
        "train": lambda wnid, name: name.replace(".JPEG", f"_{wnid}.JPEG"),
        "val": with_wnid,
        "test": lambda name: f"test/{name}",
    },
    "Windows": {
        "train": lambda wnid, name: f"{wnid}\\{name}",
        "val": lambda name: f"val\\{name}",
        "test": lambda name: f"test\\{name}",
    },
    "folders": {"train": lambda wnid, name: f"ILSVRC/train/{wnid}/{name}"},
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("imagenet2012", None),
        ("imagenet2012_subset", "10pct"),
        ("imagenet2012_multilabel", None),
        ("imagenet2012_real", None),
    ],
)
def test_names_that_are_surely_published_ones_give_the_published_bytes(
    copy, name, config, family, tmp_path
):
    """Whatever the copy calls them: file names, keys, order and bytes are the same."""
    folder = copy_of(family, tmp_path / "copy", **COPIES[copy])
    (tmp_path / "a").mkdir()
    ours = parity.build_ours(name, folder, tmp_path / "a", config=config)
    # The order of an archive's members decides nothing but which of two equal keys is kept.
    expected = parity.build_ours(name, family[1], tmp_path / "b", config=config)
    assert digests(ours) == digests(expected) and digests(ours)


REFUSED = {
    "no wnids": (
        {"train": lambda wnid, name: f"{wnid}/{name.partition('_')[2].replace('JPEG', 'jpg')}"},
        "imagenet2012",
        "expected the name of one of the train images, such as n01440764_10026.JPEG, found",
    ),
    "another class": (
        {"train": lambda wnid, name: f"n01440764/{name}"},
        "imagenet2012",
        "expected an image of the class that its folder is named after",
    ),
    "another suffix": (
        {"val": lambda name: name.replace("JPEG", "jpeg")},
        "imagenet2012_real",
        "found another one (40 of 40 images: ",
    ),
    "validation as test": (
        {"test": lambda name: name.replace("test", "val")},
        "imagenet2012",
        TEST,
    ),
    "test as validation": ({"val": lambda name: name.replace("val", "test")}, "imagenet2012", VAL),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_names_are_refused(case, family, tmp_path, capsys):
    names, dataset, message = REFUSED[case]
    folder = copy_of(family, tmp_path / "copy", **names)
    assert build(folder, tmp_path / "data", dataset) == 1
    assert message in said(capsys)
    assert_nothing_prepared(tmp_path / "data")


def test_the_test_archive_as_image_net_calls_it(family, tmp_path, capsys):
    folder = copy_of(family, tmp_path / "copy", test=lambda name: f"test/{name}")
    (folder / TEST).rename(folder / "ILSVRC2012_img_test_v10102019.tar")
    ours = parity.build_ours("imagenet2012", folder, tmp_path / "a")
    assert digests(ours) == digests(parity.build_ours("imagenet2012", family[1], tmp_path / "b"))
    capsys.readouterr()
    cli.main(["verify", "--manual_dir", str(folder), "--json"])
    (found,) = (
        file for file in json.loads(capsys.readouterr().out)["files"] if file["name"] == TEST
    )
    assert found["path"].endswith("ILSVRC2012_img_test_v10102019.tar") and found["examples"] == 8


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (
            "ILSVRC2012_img_val.tar.gz",
            f"ILSVRC2012_img_val.tar.gz is there: give it the name {VAL}",
        ),
        ("ilsvrc2012_img_val (1).tar", f"is there: give it the name {VAL}"),
        ("ILSVRC2012_img_val.tar.zst", "is there: unpack it (unzstd)"),
        ("val", f"val is there: pack the images in it as a tar of the name {VAL}"),
        ("imagenet-object-localization-challenge.zip", "is there: pack the images in it"),
    ],
)
def test_who_does_not_find_an_archive_looks_at_what_is_there(there, message, tmp_path, capsys):
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / there).touch()
    assert build(folder, tmp_path / "data", "imagenet2012_real") == 1
    found = said(capsys)
    assert "Not found: " in found and message in found


def test_an_archive_of_ones_own_that_is_not_there(tmp_path):
    """A builder of one's own may look for an archive that nobody here knows."""
    (tmp_path / "mine.tar.gz").touch()
    dl_manager = types.SimpleNamespace(manual_dir=tmp_path)
    with pytest.raises(MissingFileError, match=r"mine.tar.gz is there: give it the name mine.tar"):
        ilsvrc.find_archives(dl_manager, "mine.tar")


def test_a_test_archive_that_nobody_has_is_no_reason_for_a_warning(family, tmp_path, caplog):
    folder = copy_of(family, tmp_path / "copy")
    (folder / TEST).unlink()
    parity.build_ours("imagenet2012", folder, tmp_path)
    assert TEST not in caplog.text
    (folder / VAL).unlink()
    parity.build_ours("imagenet2012", folder, tmp_path / "b")
    assert f"There is no {VAL}: no split 'validation' is built" in caplog.text

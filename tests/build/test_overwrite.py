"""Prepared datasets that are to be built again, and folders that datasets cannot be written to."""

import json
import os
import shutil
import tempfile

import parity
import pytest
import tensorflow_datasets as tfds

from imagenet_family import cli
from imagenet_family.datasets import by_name
from imagenet_family.errors import BuildError, ImagenetFamilyError, UsageError

OVERWRITE = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
FAMILY = {"train": 48, "val": 40, "test": 10, "v2": 12}


@pytest.fixture(scope="module")
def built_once(archives, tmp_path_factory):
    return parity.build_ours("imagenet2012", archives, tmp_path_factory.mktemp("data")).data_path


@pytest.fixture
def prepared(built_once, tmp_path):
    """A prepared dataset that a test may change."""
    folder = tmp_path / "ours" / "imagenet2012" / "5.1.0"
    shutil.copytree(built_once, folder)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut(archives, tmp_path):
    """Archives of which one ends too early."""
    folder = tmp_path / "cut"
    shutil.copytree(archives, folder)
    validation = folder / "ILSVRC2012_img_val.tar"
    os.truncate(validation, validation.stat().st_size // 2)
    return folder


@pytest.mark.parametrize("where", ["nowhere", "cut"])
def test_nothing_is_removed_for_archives_that_are_missing_or_damaged(
    where, archives, prepared, tmp_path
):
    before = files(prepared)
    manual_dir = cut(archives, tmp_path) if where == "cut" else tmp_path / "nowhere"
    with pytest.raises(ImagenetFamilyError, match=r"Not found|found the end of the file"):
        parity.build_ours("imagenet2012", manual_dir, tmp_path, download_mode=OVERWRITE)
    assert files(prepared) == before
    assert sorted(path.name for path in prepared.parent.iterdir()) == [".5.1.0.lock", "5.1.0"]


def test_nothing_is_removed_for_a_version_that_cannot_be_built(archives, prepared, capsys):
    old = prepared.rename(prepared.with_name("5.0.0"))
    info = json.loads((old / "dataset_info.json").read_text())
    (old / "dataset_info.json").write_text(json.dumps({**info, "version": "5.0.0"}))
    before = files(old)
    arguments = ["build", "imagenet2012:5.0.0", "--data_dir", str(old.parent.parent)]
    arguments += ["--manual_dir", str(archives), "--overwrite"]
    for more in ([], ["--dry_run"]):
        assert cli.main([*arguments, *more]) == 1
        assert "too old to be built" in capsys.readouterr().err
    assert files(old) == before


def test_nothing_is_removed_for_a_format_that_cannot_be_written(archives, prepared, tmp_path):
    before = files(prepared)
    builder = parity.ours("imagenet2012", tmp_path)
    config = tfds.download.DownloadConfig(manual_dir=archives, download_mode=OVERWRITE)
    with pytest.raises(UsageError, match="Riegeli"):
        builder.download_and_prepare(download_config=config, file_format="riegeli")
    assert files(prepared) == before


def test_a_dataset_that_is_built_again_has_the_same_files(archives, prepared, tmp_path):
    before = files(prepared)
    (prepared / "shards.json").unlink()
    parity.build_ours("imagenet2012", archives, tmp_path, download_mode=OVERWRITE)
    assert files(prepared) == before


def test_a_dataset_is_built_again_in_another_format(archives, prepared, tmp_path):
    fresh = parity.build_ours(
        "imagenet2012", archives, tmp_path / "fresh", file_format="array_record"
    )
    builder = parity.ours("imagenet2012", tmp_path)
    config = tfds.download.DownloadConfig(manual_dir=archives, download_mode=OVERWRITE)
    builder.download_and_prepare(download_config=config, file_format="array_record")
    assert files(prepared) == files(fresh.data_path)
    assert len(builder.as_data_source("train")) == 48


def test_the_command_removes_nothing_before_it_can_build_in_another_format(
    archives, prepared, tmp_path, capsys
):
    before = files(prepared)
    arguments = ["build", "imagenet2012", "--data_dir", str(tmp_path / "ours"), "--overwrite"]
    arguments += ["--file_format", "array_record", "--manual_dir"]
    assert cli.main([*arguments, str(tmp_path / "nowhere")]) == 1
    assert "Not found" in capsys.readouterr().err
    assert files(prepared) == before
    assert cli.main([*arguments, str(archives)]) == 0
    fresh = parity.build_ours(
        "imagenet2012", archives, tmp_path / "fresh", file_format="array_record"
    )
    assert files(prepared) == files(fresh.data_path)


@pytest.mark.parametrize("damage", ["unreadable", "of another format"])
def test_making_a_builder_removes_nothing(damage, archives, prepared, tmp_path, capsys):
    data_dir = prepared.parent.parent
    info = prepared / "dataset_info.json"
    if damage == "unreadable":
        info.write_text("{")
    before = files(prepared)
    file_format = "tfrecord" if damage == "unreadable" else "array_record"
    options = {"data_dir": data_dir, "file_format": file_format}
    with pytest.raises(BuildError, match="--overwrite"):
        next(by_name.builders("imagenet2012", **options))
    builder = next(by_name.builders("imagenet2012", overwrite=True, **options))
    assert files(prepared) == before
    nowhere = tfds.download.DownloadConfig(manual_dir=tmp_path / "nowhere", download_mode=OVERWRITE)
    with pytest.raises(ImagenetFamilyError, match="Not found"):
        builder.download_and_prepare(download_config=nowhere)
    assert files(prepared) == before
    config = tfds.download.DownloadConfig(manual_dir=archives, download_mode=OVERWRITE)
    builder.download_and_prepare(download_config=config)
    fresh = parity.build_ours("imagenet2012", archives, tmp_path / "x", file_format=file_format)
    assert files(prepared) == files(fresh.data_path)
    assert builder.info.splits["train"].num_examples == 48


def test_a_failed_build_leaves_only_its_lock(tmp_path):
    with pytest.raises(ImagenetFamilyError, match="Not found"):
        parity.build_ours("imagenet2012", tmp_path / "nowhere", tmp_path)
    names = [path.name for path in (tmp_path / "ours" / "imagenet2012").iterdir()]
    assert names == [".5.1.0.lock"]


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_not_written_through(there, archives, prepared, tmp_path):
    disk = tmp_path / "disk"
    prepared.rename(disk) if there else shutil.rmtree(prepared)
    prepared.symlink_to(disk)
    if there:  # what lies there can be read
        assert parity.ours("imagenet2012", tmp_path).is_prepared()
    with pytest.raises(BuildError, match=f"symbolic link to {disk}.*Remove the link"):
        parity.build_ours("imagenet2012", archives, tmp_path, download_mode=OVERWRITE)
    assert prepared.is_symlink() and disk.exists() == there
    assert not list(prepared.parent.glob("partial.*"))


def test_a_builder_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    builder = parity.ours("imagenet_v2", tmp_path / "data", config="topimages")
    assert builder.info.full_name == "imagenet_v2/topimages/3.0.0"
    assert list(tmp_path.iterdir()) == []


def test_a_description_in_the_bucket_of_tfds_is_still_read(prepared, tmp_path, monkeypatch):
    from tensorflow_datasets.core.utils import gcs_utils

    found = [parity.epath.Path(path) for path in prepared.iterdir() if path.suffix == ".json"]
    monkeypatch.setattr(gcs_utils, "gcs_dataset_info_files", lambda name: found)
    builder = parity.ours("imagenet2012", tmp_path / "empty")
    assert not builder.is_prepared()
    assert builder.info.splits["train"].num_examples == 48


@pytest.mark.parametrize("name, like", [("star*", "starfish"), ("q?x", "qax"), ("run[1]", "run1")])
def test_a_folder_is_no_pattern(name, like, archives, prepared, tmp_path):
    other = tmp_path / like / "ours" / "imagenet2012" / "5.1.0"
    shutil.copytree(prepared, other)
    (other / f"incomplete.{'a' * 32}.features.json").touch()  # TFDS removes such from its own
    before = files(other)
    for options in ({}, {}, {"download_mode": OVERWRITE}):
        builder = parity.build_ours("imagenet2012", archives, tmp_path / name, **options)
        assert builder.is_prepared() and files(builder.data_path) == files(prepared)
    assert files(other) == before

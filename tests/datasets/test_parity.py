"""Our builders against stock TFDS's: the same archives must give the same dataset."""

import dataclasses
import shutil

import parity
import pytest
import tensorflow_datasets as tfds
from archives_lib import make_family

from imagenet_family.errors import UsageError


@pytest.mark.parametrize("options", [{}, {"num_shards": 7}], ids=["one shard", "7 shards"])
@pytest.mark.parametrize(("name", "config"), parity.DATASETS)
def test_every_record_equals_stock(name, config, options, archives, tmp_path):
    ours = parity.build_ours(name, archives, tmp_path, config=config, **options)
    stock = parity.build_stock(name, archives, tmp_path, config=config, **options)
    compared = parity.assert_equal(ours, stock)
    assert compared == sum(split.num_examples for split in ours.info.splits.values()) >= 200


@pytest.mark.parametrize("name", ["imagenet2012", "imagenet2012_multilabel"])
def test_array_records_equal_stock(name, archives, tmp_path):
    options = {"file_format": "array_record", "num_shards": 3}
    ours = parity.build_ours(name, archives, tmp_path, workers=2, **options)
    stock = parity.build_stock(name, archives, tmp_path, **options)
    parity.assert_equal(ours, stock)
    for split in stock.info.splits:
        mine, theirs = ours.as_data_source(split), stock.as_data_source(split)
        assert len(mine) == len(theirs)
        last = len(theirs) - 1
        assert mine[last]["file_name"] == theirs[last]["file_name"]
        assert (mine[0]["image"] == theirs[0]["image"]).all()


def test_max_examples_and_shard_sizes_are_those_of_stock(archives, tmp_path):
    options = {"max_examples_per_split": 150, "max_shard_size": 1 << 16, "min_shard_size": 1 << 14}
    ours = parity.build_ours("imagenet2012", archives, tmp_path, **options)
    stock = parity.build_stock("imagenet2012", archives, tmp_path, **options)
    assert parity.assert_equal(ours, stock) == 450


def test_each_reads_what_the_other_prepared(archives, tmp_path):
    parity.build_ours("imagenet2012_real", archives, tmp_path)
    parity.build_stock("imagenet2012_real", archives, tmp_path)
    stock_cls = parity.stock_builder_cls("imagenet2012_real")
    assert stock_cls(data_dir=tmp_path / "ours").is_prepared()
    reading_stocks = tfds.builder("imagenet2012_real", data_dir=tmp_path / "stock")
    assert reading_stocks.is_prepared()
    first = [
        next(iter(builder.as_dataset(split="validation").as_numpy_iterator()))
        for builder in (stock_cls(data_dir=tmp_path / "ours"), reading_stocks)
    ]
    assert first[0]["file_name"] == first[1]["file_name"]
    assert (first[0]["image"] == first[1]["image"]).all()
    assert first[0]["real_label"].tolist() == first[1]["real_label"].tolist()


def test_output_has_the_same_bytes_with_any_number_of_workers(archives, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "imagenet_family.build.processes.SERIAL_BYTES", 0
    )  # as if it were a large one
    contents = []
    for workers in (1, 2, 3):
        builder = parity.build_ours(
            "imagenet2012", archives, tmp_path / str(workers), workers=workers, num_shards=5
        )
        files = sorted(path for path in builder.data_path.iterdir())
        contents.append({path.name: path.read_bytes() for path in files})
        shutil.rmtree(builder.data_path)
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) >= 15


def test_tfds_is_one_that_is_known():
    from imagenet_family import tfds_internals

    assert tfds_internals.check() == ()


def test_an_unknown_tfds_writes_the_dataset_itself(archives, tmp_path, monkeypatch):
    from imagenet_family import tfds_internals

    monkeypatch.setattr(tfds_internals, "check", lambda: ("splits.SplitInfo is missing",))
    ours = parity.build_ours("imagenet2012_subset", archives, tmp_path, config="1pct")
    stock = parity.build_stock("imagenet2012_subset", archives, tmp_path, config="1pct")
    parity.assert_equal(ours, stock)
    assert not (ours.data_path / "shards.json").exists()  # the engine's manifest


def test_a_format_with_index_files_is_refused(archives, tmp_path):
    with pytest.raises(UsageError, match="Choose another file_format: tfrecord"):
        parity.build_ours("imagenet2012", archives, tmp_path, file_format="riegeli")
    assert not list(tmp_path.rglob("*riegeli*"))


def test_version_5_1_0_of_the_subset_adds_the_test_split(archives, tmp_path):
    builder = parity.build_ours(
        "imagenet2012_subset", archives, tmp_path, config="1pct", version="5.1.0"
    )
    assert list(builder.info.splits) == ["train", "validation", "test"]
    labels = {record["label"][0] for record in parity.records(builder, "test")}
    assert labels == {-1}


def test_an_image_that_nobody_knew_to_be_cmyk_is_converted(tmp_path):
    # Stock TFDS converts images by their names; by their content is what the names are for.
    from archives_lib import fake

    family = make_family(tmp_path / "archives", train=24, val=40, test=12, v2=0)
    picture = fake.picture(1, 1, (40, 30))
    converted = dataclasses.replace(
        family, test={"ILSVRC2012_test_00000001.JPEG": fake.cmyk_jpeg(picture, adobe=True)}
    )
    (tmp_path / "archives" / "ILSVRC2012_img_test.tar").write_bytes(
        fake.tar_bytes(converted.test.items())
    )
    builder = parity.build_ours("imagenet2012", tmp_path / "archives", tmp_path)
    (record,) = parity.records(builder, "test")
    assert tfds.core.utils.image_utils.decode_image(record["image"][0]).shape == (30, 40, 3)
    size = builder.info.splits["test"].num_bytes
    assert size > len(record["image"][0]) != len(converted.test["ILSVRC2012_test_00000001.JPEG"])

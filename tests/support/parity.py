"""Builds a dataset with stock TFDS and with ours from the same archives, and compares them."""

import contextlib
import importlib
import json
import tarfile
from pathlib import Path
from unittest import mock

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

import imagenet_family
from imagenet_family import shards

DATASETS = [
    ("imagenet2012", None),
    ("imagenet2012_multilabel", None),
    ("imagenet2012_real", None),
    ("imagenet2012_subset", "1pct"),
    ("imagenet2012_subset", "10pct"),
    ("imagenet_v2", "matched-frequency"),
    ("imagenet_v2", "threshold-0.7"),
    ("imagenet_v2", "topimages"),
]


def stock_builder_cls(name):
    """Gives stock TFDS's own builder class of a dataset."""
    return importlib.import_module(
        f"tensorflow_datasets.datasets.{name}.{name}_dataset_builder"
    ).Builder


@contextlib.contextmanager
def local_downloads(archives: Path, extracted: Path):
    """Lets stock TFDS take every URL's file from a folder, unchecked: fakes have no checksum."""

    def download(_, url):
        return epath.Path(archives / Path(url).name)

    def download_and_extract(_, url):
        folder = extracted / Path(url).name
        if not folder.exists():
            with tarfile.open(archives / Path(url).name) as tar:
                tar.extractall(folder, filter="data")
        return epath.Path(folder)

    with mock.patch.multiple(
        tfds.download.DownloadManager, download=download, download_and_extract=download_and_extract
    ):
        yield


def build_stock(name, archives: Path, data_dir: Path, *, config=None, file_format=None, **options):
    """Builds a dataset with stock TFDS."""
    builder = stock_builder_cls(name)(
        data_dir=data_dir / "stock", config=config, file_format=file_format
    )
    with local_downloads(archives, data_dir / "extracted"):
        prepare(builder, archives, **options)
    return builder


def build_ours(
    name,
    archives: Path,
    data_dir: Path,
    *,
    config=None,
    file_format=None,
    workers=1,
    version=None,
    **options,
):
    """Builds a dataset with our builder."""
    builder = ours(
        name, data_dir, config=config, version=version, file_format=file_format, workers=workers
    )
    prepare(builder, archives, **options)
    return builder


def ours(name, data_dir: Path, *, workers=1, **options):
    """Makes our builder of a dataset."""
    return importlib.import_module(imagenet_family.DATASETS[name]).Builder(
        data_dir=data_dir / "ours", workers=workers, verify_checksums=False, **options
    )


def prepare(builder, archives, **options):
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=archives, try_download_gcs=False, **options
        )
    )


def records(builder, split):
    """Gives the records of a split, in order, each as {feature: list of values}."""
    info = builder.info.splits[split]
    file_format = builder.info.file_format.value
    for path in info.filepaths:
        for record in shards.read_records(path, file_format):
            yield fields(record)


def fields(record: bytes):
    """Parses a serialized example."""
    example = tf_example_pb2.Example.FromString(record)
    return {
        name: list(getattr(value, value.WhichOneof("kind")).value)
        for name, value in example.features.feature.items()
    }


def assert_equal(ours, stock):
    """Compares splits, shards, specs and every record of two prepared datasets.

    Returns:
        The number of records compared.
    """
    assert list(ours.info.splits) == list(stock.info.splits)
    assert ours.info.full_name == stock.info.full_name
    assert ours.info.supervised_keys == stock.info.supervised_keys
    assert ours.info.features.get_tensor_info() == stock.info.features.get_tensor_info()
    specs = [json.loads((b.data_path / "features.json").read_text()) for b in (ours, stock)]
    assert specs[0] == specs[1]
    compared = 0
    for split in stock.info.splits:
        a, b = ours.info.splits[split], stock.info.splits[split]
        assert a.shard_lengths == b.shard_lengths, split
        assert a.num_bytes == b.num_bytes, split
        assert a.filenames == b.filenames, split
        for mine, theirs in zip(records(ours, split), records(stock, split), strict=True):
            assert mine == theirs, (split, compared, mine["file_name"])
            compared += 1
    return compared

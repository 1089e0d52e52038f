"""The folder that becomes the dataset: what gets into it, what stays of it, and who writes it."""

from pathlib import Path

import parity
import pytest
import tensorflow_datasets as tfds
from archives_lib import make_family

from imagenet_family.build import staging
from imagenet_family.errors import BuildError, UsageError
from imagenet_family.examples.lazy import LazyExamples
from imagenet_family.shards.digest import ShardResult

SHARDS = {"train": {name: ShardResult(1, 1, "0" * 64) for name in "abc"}}
OVERWRITE = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS


@pytest.fixture
def dataset(tmp_path):
    return tmp_path / "5.1.0"


def stage_of(dataset, digest="0" * 64):
    return staging.Staging(dataset, digest)


def fill(folder):
    for name in "abc":
        Path(folder, name).write_text(name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_of_killed_builds_gets_into_the_dataset(dataset):
    stage = stage_of(dataset)
    with stage.filling() as folder:
        fill(folder)
        # A shard of another number, half of a description, and what a worker had begun.
        for name in ("d", "dataset_info.json", "a.5eed.incomplete"):
            Path(folder, name).touch()
        stage.record(SHARDS, "tfrecord")
        Path(folder, "features.json").touch()
        Path(folder, "b.5eed.incomplete").touch()  # by a worker that does not know it yet
    assert names(dataset) == ["a", "b", "c", "features.json", "shards.json"]
    assert names(dataset.parent) == ["5.1.0"]


def test_a_dataset_does_not_appear_without_a_shard_of_it(dataset):
    stage = stage_of(dataset)
    with pytest.raises(BuildError, match=r"/b is gone \(1 in all\)"), stage.filling() as folder:
        fill(folder)
        stage.record(SHARDS, "tfrecord")
        Path(folder, "b").unlink()
    assert not dataset.exists()
    assert {"a", "c"} < set(names(Path(stage.folder)))


def test_what_no_plan_names_is_of_no_use_to_another_build(dataset):
    with pytest.raises(KeyError), stage_of(dataset, None).filling() as folder:
        fill(folder)
        raise KeyError
    assert names(dataset.parent) == []


def test_where_locks_are_those_of_one_machine_the_first_to_finish_has_it(dataset):
    ours, theirs = stage_of(dataset), stage_of(dataset)
    with pytest.raises(BuildError), ours.filling() as folder:
        fill(folder)
        with theirs.filling() as same:  # on another machine
            fill(same)
            theirs.record(SHARDS, "tfrecord")
        ours.record(SHARDS, "tfrecord")
    assert names(dataset) == ["a", "b", "c", "shards.json"]


def test_where_locks_are_those_of_one_machine_a_dataset_is_not_replaced(dataset):
    ours = stage_of(dataset)
    with pytest.raises(BuildError, match="exists"), ours.filling() as folder:
        fill(folder)
        ours.record(SHARDS, "tfrecord")
        dataset.mkdir()
        (dataset / "theirs").touch()
    assert names(dataset) == ["theirs"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    make_family(folder, train=24, val=20, test=6, v2=4)
    return folder


def test_the_input_is_got_once(archives, tmp_path, monkeypatch):
    builder = parity.ours("imagenet2012", tmp_path)
    got = []
    ordinary = type(builder)._split_generators

    def split_generators(self, dl_manager):
        got.append(dl_manager)
        return ordinary(self, dl_manager)

    monkeypatch.setattr(type(builder), "_split_generators", split_generators)
    for mode in (tfds.GenerateMode.REUSE_DATASET_IF_EXISTS, OVERWRITE):
        config = tfds.download.DownloadConfig(manual_dir=archives, download_mode=mode)
        builder.download_and_prepare(download_config=config)
    assert len(got) == 2


def test_splits_that_are_no_tables_are_written_by_tfds(archives, tmp_path, monkeypatch):
    planned = parity.build_ours("imagenet2012", archives, tmp_path / "planned")
    builder = parity.ours("imagenet2012", tmp_path)
    ordinary = type(builder)._split_generators
    broken = True

    def split_generators(self, dl_manager):
        for name, split in ordinary(self, dl_manager).items():
            examples = split.open() if isinstance(split, LazyExamples) else split
            yield name, examples

    def plain(self, dl_manager):
        splits = {name: list(split) for name, split in split_generators(self, dl_manager)}
        if broken:
            splits["test"].append(("key", {}))
        return splits

    monkeypatch.setattr(type(builder), "_split_generators", plain)
    config = tfds.download.DownloadConfig(manual_dir=archives)
    with pytest.raises(Exception, match="encode example"):
        builder.download_and_prepare(download_config=config)
    parent = Path(builder.data_path).parent
    assert names(parent) == [".5.1.0.lock"]
    with pytest.raises(UsageError, match="makes no plan"):
        builder.plan(download_config=config)
    broken = False
    builder.download_and_prepare(download_config=config)
    assert names(parent) == [".5.1.0.lock", "5.1.0"]
    for split, info in planned.info.splits.items():
        assert builder.info.splits[split].num_examples == info.num_examples
        found = [example["file_name"] for example in tfds.as_numpy(builder.as_dataset(split))]
        expected = [example["file_name"] for example in tfds.as_numpy(planned.as_dataset(split))]
        assert found == expected


def test_without_examples_tfds_looks_at_no_input(tmp_path):
    builder = parity.build_ours(
        "imagenet2012", tmp_path / "nowhere", tmp_path, max_examples_per_split=0
    )
    assert builder.is_prepared()
    assert names(Path(builder.data_path).parent) == [".5.1.0.lock", "5.1.0"]

"""Exports: what they hold, whatever they are made from, and the command."""

import json
import subprocess
import sys
import tarfile

import parity
import pytest
import webdataset_lib as lib
from archives_lib import fake

import imagenet_family
from imagenet_family import cli
from imagenet_family.build import processes
from imagenet_family.errors import BuildError, DuplicateKeyError, MissingFileError, UsageError
from imagenet_family.labels import classes
from imagenet_family.shards import manifest

SHARDS = 4
FAMILY = {"train": 120, "val": 90, "test": 20, "v2": 60}


@pytest.mark.parametrize(("name", "config"), lib.DATASETS)
def test_each_shard_holds_what_the_shard_of_stock_tfds_holds(name, config, archives, tmp_path):
    stock = parity.build_stock(name, archives, tmp_path, config=config, num_shards=SHARDS)
    output = lib.export(name, archives, tmp_path / "out", config=config, num_shards=SHARDS)
    info = lib.info_of(output)
    assert list(info) == list(stock.info.splits)
    for split in info:
        assert info[split]["shard_lengths"] == stock.info.splits[split].shard_lengths
        assert info[split]["num_samples"] == stock.info.splits[split].num_examples
        paths = lib.shard_paths(output, split)
        assert len(paths) == SHARDS
        for path, records in zip(paths, lib.shard_records(stock, split), strict=True):
            for (key, found), record in zip(lib.samples(path), records, strict=True):
                expected_key, image, label, description = lib.expected_sample(record)
                assert list(found) == ["jpg", "cls", "json"]
                assert key == expected_key
                assert found["jpg"] == image
                assert found["cls"] == str(label).encode()
                meta = json.loads(found["json"])
                assert {field: meta[field] for field in description} == description
                known = label >= 0
                assert meta["wnid"] == (classes.wnids()[label] if known else "")
                assert meta["class_name"] == (classes.class_names()[label] if known else "")


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "parquet"])
@pytest.mark.parametrize(("name", "config"), lib.DATASETS)
def test_a_prepared_dataset_of_stock_gives_the_same_files(
    name, config, file_format, archives, tmp_path
):
    options = {"config": config, "num_shards": SHARDS}
    output = lib.export(name, archives, tmp_path / "out", **options)
    parity.build_stock(name, archives, tmp_path, file_format=file_format, **options)
    builder = lib.builder_of(name, tmp_path / "stock", config=config)
    again = imagenet_family.export_webdataset(builder, tmp_path / "again", from_prepared=True)
    assert lib.data(again) == lib.data(output)


def test_a_prepared_dataset_can_be_cut_into_other_shards(archives, tmp_path):
    ours = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=3)
    output = lib.export("imagenet2012", archives, tmp_path / "out", num_shards=7)
    again = tmp_path / "again"
    imagenet_family.export_webdataset(ours, again, from_prepared=True, num_shards=7)
    assert lib.data(again) == lib.data(output)


def test_the_number_of_shards_is_that_of_tfds(archives, tmp_path):
    output = lib.export("imagenet2012", archives, tmp_path / "out")
    stock = parity.build_stock("imagenet2012", archives, tmp_path)
    for split, info in stock.info.splits.items():
        assert lib.info_of(output)[split]["shard_lengths"] == info.shard_lengths


def test_manifest_has_the_digests_of_the_same_build(exported, archives, tmp_path):
    ours = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=SHARDS)
    built = json.loads((ours.data_path / manifest.NAME).read_text())["splits"]
    recorded = json.loads((exported / manifest.NAME).read_text())["splits"]
    for split in built:
        assert list(built[split].values()) == list(recorded[split].values())


def test_names_of_shards(archives, tmp_path):
    output = lib.export("imagenet2012", archives, tmp_path / "out", num_shards=11, splits=["test"])
    assert list(lib.info_of(output)) == ["test"]
    names = [path.name for path in lib.shard_paths(output, "test")]
    assert names == [f"imagenet1k-test-{shard:02}.tar" for shard in range(11)]
    assert {path.name for path in output.iterdir()} == {*names, "_info.json", "shards.json"}

    options = {"num_shards": 2, "shard_width": 4, "config": "threshold-0.7"}
    output = lib.export("imagenet_v2", archives, tmp_path / "wide", **options)
    names = [path.name for path in lib.shard_paths(output, "test")]
    assert names == [f"imagenet_v2_threshold_0_7-test-{shard:04}.tar" for shard in range(2)]

    with pytest.raises(UsageError, match="takes 2 digits, not 1"):
        lib.export("imagenet2012", archives, tmp_path / "thin", num_shards=11, shard_width=1)
    assert not list(tmp_path.glob("partial.*"))
    with pytest.raises(BuildError, match="File name too long"):
        lib.export("imagenet2012", archives, tmp_path / "long", num_shards=11, shard_width=300)
    assert not (tmp_path / "long").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(there, archives, exported, tmp_path):
    disk, link = tmp_path / "disk", tmp_path / "link"
    if there:
        disk.mkdir()
    link.symlink_to(disk)
    for _ in range(2):
        lib.export("imagenet2012", archives, link, num_shards=SHARDS)
    assert link.is_symlink()
    assert lib.contents(disk) == lib.contents(exported)


def test_tars_are_the_same_for_any_number_of_workers(exported, archives, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "SERIAL_BYTES", 0)
    output = tmp_path / "out"
    lib.export("imagenet2012", archives, output, num_shards=SHARDS, workers=2)
    assert lib.contents(output) == lib.contents(exported)
    for path in lib.shard_paths(output, "train"):
        assert path.stat().st_size % tarfile.RECORDSIZE == 0
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert {(m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
            (0, 0, "", "", 0o644)
        }
        assert len({m.mtime for m in members}) == 1
        assert all(m.isreg() for m in members)


def test_gnu_tar_unpacks_them_without_a_word(exported, tmp_path):
    for split in lib.info_of(exported):
        for path in lib.shard_paths(exported, split):
            done = subprocess.run(
                ["tar", "-xvf", path, "-C", tmp_path], capture_output=True, text=True, check=True
            )
            assert done.stderr == ""
            members = [f"{key}.{s}" for key, sample in lib.samples(path) for s in sample]
            assert done.stdout.split() == members
            for key, sample in lib.samples(path):
                assert (tmp_path / f"{key}.jpg").read_bytes() == sample["jpg"]


def test_real_labels_as_one_number(archives, tmp_path):
    output = lib.export("imagenet2012_real", archives, tmp_path / "out")
    assert lib.info_of(output)["validation"]["alt_label"] == "real"
    kinds = set()
    for path in lib.shard_paths(output, "validation"):
        for _, sample in lib.samples(path):
            meta = json.loads(sample["json"])
            assert int(sample["cls"]) == meta["label"] == meta["original_label"]
            if not meta["real_label"]:
                kinds.add("none")
                assert meta["real"] == -1
            elif meta["label"] in meta["real_label"]:
                kinds.add("own")
                assert meta["real"] == meta["label"]
            else:
                kinds.add("other")
                assert meta["real"] == meta["real_label"][0]
    assert {"none", "own"} <= kinds


def test_usage_errors(archives, tmp_path):
    with pytest.raises(UsageError, match="no split 'val'; there are train, validation, test"):
        lib.export("imagenet2012", archives, tmp_path / "out", splits=["train", "val"])
    with pytest.raises(UsageError, match="no split"):
        lib.export("imagenet2012", archives, tmp_path / "out", splits=[])
    with pytest.raises(BuildError, match="too few for 500 shards"):
        lib.export("imagenet2012", archives, tmp_path / "out", num_shards=500)
    for number in (0, -2):
        with pytest.raises(UsageError, match=f"num_shards is at least 1: found {number}"):
            lib.export("imagenet2012", archives, tmp_path / "out", num_shards=number)
    builder = lib.builder_of("imagenet2012", tmp_path / "nothing")
    with pytest.raises(MissingFileError, match="no prepared dataset"):
        imagenet_family.export_webdataset(builder, tmp_path / "out", from_prepared=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["0/a.jpg", "0/a"])
def test_names_that_would_be_one_sample_are_refused(other, tmp_path):
    image = fake.jpeg(fake.picture(0, 0, (20, 20)))
    config = "topimages"
    archive = tmp_path / fake.V2_ARCHIVES[config][0]
    archive.write_bytes(fake.v2_tar(config, {"0/a.jpeg": image, other: image}))
    with pytest.raises(DuplicateKeyError, match=r"0/a\b.* would be one sample"):
        lib.export("imagenet_v2", tmp_path, tmp_path / "out", config=config)


def test_prepared_shards_that_are_damaged_or_short(archives, tmp_path):
    ours = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=2)
    shard = ours.info.splits["train"].filepaths[0]
    whole = shard.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:100] + b"\0" + whole[101:]):
        shard.write_bytes(damaged)
        with pytest.raises(BuildError, match=shard.name):
            imagenet_family.export_webdataset(ours, tmp_path / "out", from_prepared=True)
    shard.unlink()
    with pytest.raises(BuildError, match=shard.name):
        imagenet_family.export_webdataset(ours, tmp_path / "out", from_prepared=True)
    assert not (tmp_path / "out").exists()


_LIGHT = """
import pickle, sys
import webdataset_lib as lib
from pathlib import Path
from imagenet_family.build import staging

archives, output = map(Path, sys.argv[1:])
ordinary, tasks = staging.write_shard, []

def keep(examples, path, file_format):
    tasks.append(pickle.dumps(staging.ShardTask(examples, str(path), file_format)))
    return ordinary(examples, path, file_format)

staging.write_shard = keep
lib.export("imagenet2012", archives, output, num_shards=2)
(output / "task").write_bytes(tasks[0])
print(sorted({"tensorflow", "torch", "webdataset", "timm"} & set(sys.modules)))
"""
_LIGHT_WORKER = """
import pickle, sys
from pathlib import Path
from imagenet_family.build import staging

task = pickle.loads(Path(sys.argv[1]).read_bytes())
staging.write_shard(task.examples, sys.argv[1] + ".tar", task.file_format)
print(sorted({"tensorflow", "tensorflow_datasets", "torch", "apache_beam"} & set(sys.modules)))
"""


def test_neither_tensorflow_nor_torch_is_imported(archives, tmp_path):
    for code, arguments in (
        (_LIGHT, [archives, tmp_path / "out"]),
        (_LIGHT_WORKER, [tmp_path / "out" / "task"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=lib.ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_command(archives, exported, tmp_path, capsys):
    output = tmp_path / "out"
    folders = ["--manual_dir", str(archives), "--download_dir", str(tmp_path / "downloads")]
    command = ["export-wds", "imagenet2012", *folders, "--output_dir", str(output)]
    assert cli.main([*command, "--num_shards", str(SHARDS)]) == 0
    assert lib.contents(output) == lib.contents(exported)
    assert "test: 20 samples, 4 shards" in capsys.readouterr().out

    assert cli.main(["export-wds", "--check", str(output)]) == 0
    assert f"{output}: all is well" in capsys.readouterr().out
    (output / "imagenet1k-test-2.tar").write_bytes(b"")
    assert cli.main(["export-wds", "--check", str(output)]) == 1
    out = capsys.readouterr().out
    assert "imagenet1k-test-2.tar cannot be read" in out and "1 problem" in out

    for wrong in (
        ["export-wds"],
        ["export-wds", "imagenet2012"],
        ["export-wds", "imagenet2012", "imagenet_v2", "--output_dir", "x"],
        ["export-wds", "imagenet_v2", "--output_dir", str(tmp_path / "v2")],
        ["export-wds", "imagenet2012", "--check", str(output)],
        ["export-wds", "--check", str(tmp_path / "nothing")],
        [*command[:-1], str(tmp_path / "other"), "--splits", "train, valid"],
    ):
        assert cli.main(wrong) == 1
        error = capsys.readouterr().err
        assert error.startswith("imagenet-family: error: ") and error.count("\n") == 1
    assert "There is no split 'valid'" in error  # blanks after commas are nothing

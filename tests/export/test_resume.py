"""Exports: stopping, resuming and repeating them does no harm, nor does what is in the way."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
import webdataset_lib as lib
from archives_lib import make_family
from machine_limits import small_disk

import imagenet_family
from imagenet_family.build import staging
from imagenet_family.errors import BuildError, UsageError

SHARDS = 4
FAMILY = {"train": 120, "val": 90, "test": 20, "v2": 60}


_KILLED = """
import os, signal, sys
import webdataset_lib as lib
from pathlib import Path
from imagenet_family.{package} import {module}

ordinary, calls = {module}.{function}, 0

def last_call(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return ordinary(*args, **kwargs)

{module}.{function} = last_call
lib.export("imagenet2012", Path(sys.argv[1]), Path(sys.argv[2]), num_shards=int(sys.argv[3]))
"""


def kill(function, call, archives, output, num_shards=SHARDS):
    """Runs an export that is killed when it is about to call a function for the n-th time."""
    package, module, function = function.split(".")
    code = _KILLED.format(package=package, module=module, function=function, call=call)
    done = subprocess.run(
        [sys.executable, "-c", code, archives, output, str(num_shards)],
        env=lib.ENVIRONMENT,
        check=False,
    )
    assert done.returncode == -9


@pytest.mark.parametrize(
    ("function", "call", "num_shards"),
    [
        ("build.staging.write_shard", 3, SHARDS),
        ("shards.manifest.write", 1, SHARDS),
        ("storage.files.rename", 1, SHARDS),
        ("storage.files.rename", 1, 6),  # then another number is asked for
    ],
)
def test_a_killed_export_goes_on(function, call, num_shards, exported, archives, tmp_path):
    output = tmp_path / "out"
    kill(function, call, archives, output, num_shards)
    assert not output.exists()
    (notes,) = tmp_path.glob("partial.out.*.notes")
    stage = notes.with_suffix("")
    whole = {note.name.removesuffix(".json") for note in notes.glob("*.json")}
    assert len(whole) >= 2
    damaged = min(whole)
    kept = {name: (stage / name).stat().st_ino for name in whole - {damaged}}
    data = (stage / damaged).read_bytes()
    (stage / damaged).write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])

    lib.export("imagenet2012", archives, output, num_shards=SHARDS)
    assert lib.contents(output) == lib.contents(exported)
    if num_shards == SHARDS:
        assert {name: (output / name).stat().st_ino for name in kept} == kept
    assert not list(tmp_path.glob("partial.*")) and not list(tmp_path.glob("*.incomplete*"))


def test_what_is_left_of_an_export_that_was_killed_at_its_end_is_cleared_away(
    exported, archives, tmp_path
):
    output = tmp_path / "out"
    kill("build.staging._remove_tree", 2, archives, output)
    assert output.exists() and list(tmp_path.glob("partial.*"))
    lib.export("imagenet2012", archives, output, num_shards=SHARDS)
    assert lib.contents(output) == lib.contents(exported)
    assert not list(tmp_path.glob("partial.*"))


def test_an_export_of_a_similar_name_is_not_touched(archives, exported, tmp_path):
    kill("shards.manifest.write", 1, archives, tmp_path / "out.2")
    kept = {path.name for path in tmp_path.glob("partial.out.2.*/*")}
    assert len(kept) > SHARDS
    lib.export("imagenet2012", archives, tmp_path / "out", num_shards=SHARDS)
    assert {path.name for path in tmp_path.glob("partial.out.2.*/*")} == kept
    lib.export("imagenet2012", archives, tmp_path / "out.2", num_shards=SHARDS)
    assert lib.contents(tmp_path / "out.2") == lib.contents(exported)
    assert not list(tmp_path.glob("partial.*"))


def test_a_finished_export_is_left_alone(exported, archives):
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    lib.export("imagenet2012", archives, exported, num_shards=SHARDS)
    for options in ({"num_shards": 5}, {"splits": ["train"]}, {"shard_width": 3}):
        with pytest.raises(BuildError, match="another dataset, of other splits or with other"):
            lib.export("imagenet2012", archives, exported, **{"num_shards": SHARDS, **options})
    with pytest.raises(BuildError, match="another dataset"):
        lib.export("imagenet2012_real", archives, exported)
    with pytest.raises(BuildError, match="another dataset, of other splits or with other"):
        lib.export("imagenet2012", archives, exported)  # as many shards as TFDS makes
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


def test_the_order_in_which_splits_are_named_makes_no_difference(archives, tmp_path):
    output = lib.export("imagenet2012", archives, tmp_path / "out", splits=["test", "validation"])
    assert list(lib.info_of(output)) == ["validation", "test"]
    before = lib.contents(output)
    lib.export("imagenet2012", archives, output, splits=["validation", "test"])
    assert lib.contents(output) == before


@pytest.mark.parametrize("from_prepared", [False, True])
def test_a_finished_export_of_other_files_is_not_taken_for_this_one(
    from_prepared, archives, tmp_path
):
    def export(archives, data_dir):
        builder = lib.builder_of("imagenet2012", data_dir)
        if from_prepared:
            config = tfds.download.DownloadConfig(manual_dir=archives, num_shards=SHARDS)
            builder.download_and_prepare(download_config=config)
        return imagenet_family.export_webdataset(
            builder,
            tmp_path / "out",
            manual_dir=archives,
            num_shards=SHARDS,
            from_prepared=from_prepared,
        )

    output = export(archives, tmp_path / "data")
    before = lib.contents(output)
    make_family(tmp_path / "others", train=120, val=90, test=20, v2=60, seed=1)
    with pytest.raises(BuildError, match="was made from other files"):
        export(tmp_path / "others", tmp_path / "other_data")
    if not from_prepared:
        shutil.copytree(archives, tmp_path / "copy")  # the same archives in another place
        export(tmp_path / "copy", tmp_path / "other_data")
    assert lib.contents(output) == before
    # An export of an earlier version does not tell what it was made from.
    manifest = json.loads(before["shards.json"])
    del manifest["identity"]
    (output / "shards.json").write_text(json.dumps(manifest))
    export(archives, tmp_path / "data")
    (output / "shards.json").unlink()
    with pytest.raises(BuildError, match=r"no whole export .* no shards\.json"):
        export(archives, tmp_path / "data")


def test_a_prepared_dataset_that_changes_meanwhile_is_not_mixed(archives, tmp_path, monkeypatch):
    builder = lib.builder_of("imagenet2012", tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=archives, num_shards=SHARDS)
    builder.download_and_prepare(download_config=config)
    first = Path(builder.info.splits["train"].filepaths[0])
    ordinary = staging.write_shard

    def write_shard(examples, path, file_format):
        result = ordinary(examples, path, file_format)
        if path.endswith("/imagenet1k-train-2.tar"):
            first.write_bytes(first.read_bytes())
        return result

    with monkeypatch.context() as patch:
        patch.setattr(staging, "write_shard", write_shard)
        with pytest.raises(BuildError, match=r"changed while it was exported"):
            imagenet_family.export_webdataset(builder, tmp_path / "out", from_prepared=True)
    assert not (tmp_path / "out").exists()
    imagenet_family.export_webdataset(builder, tmp_path / "out", from_prepared=True)
    assert not list(tmp_path.glob("partial.*"))


def test_a_finished_export_that_lost_a_shard_is_not_taken_for_whole(exported, archives, tmp_path):
    output = shutil.copytree(exported, tmp_path / "out")
    (output / "imagenet1k-train-1.tar").unlink()
    with pytest.raises(BuildError, match=r"train-1\.tar is missing \(1 in all\)"):
        lib.export("imagenet2012", archives, output, num_shards=SHARDS)
    shutil.rmtree(output)
    lib.export("imagenet2012", archives, output, num_shards=SHARDS)
    assert lib.contents(output) == lib.contents(exported)


def test_the_output_folder_may_exist_empty_or_be_a_link(archives, exported, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    lib.export("imagenet2012", archives, tmp_path / "link", num_shards=SHARDS)
    assert lib.contents(tmp_path / "elsewhere") == lib.contents(exported)


def test_what_is_in_the_output_folder_is_never_touched(archives, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "imagenet1k-train-0.tar").write_bytes(b"mine")
    with pytest.raises(BuildError, match="not empty"):
        lib.export("imagenet2012", archives, output)
    assert lib.contents(output) == {"imagenet1k-train-0.tar": b"mine"}
    with pytest.raises(UsageError, match="is a file"):
        lib.export("imagenet2012", archives, output / "imagenet1k-train-0.tar")


def test_a_mount_point_is_refused_before_anything_is_done(archives, tmp_path):
    output = tmp_path / "disk"
    with small_disk(output, "size=8m"):
        with pytest.raises(BuildError, match=f"a folder inside it, such as {output}/export"):
            lib.export("imagenet2012", archives, output)
        assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_a_mounted_folder_of_the_same_disk_is_refused_before_writing(
    archives, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    output.mkdir()
    ordinary = os.rmdir

    def rmdir(path, **kwargs):
        if Path(path) == output:
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        ordinary(path, **kwargs)

    monkeypatch.setattr(os, "rmdir", rmdir)
    with pytest.raises(BuildError, match="is a mount point"):
        lib.export("imagenet2012", archives, output)
    assert not list(tmp_path.glob("partial.*"))


def test_two_exports_to_one_folder_wait_for_each_other(archives, exported, tmp_path):
    output = tmp_path / "out"
    with staging.build_lock(output):
        other = threading.Thread(
            target=lib.export,
            args=("imagenet2012", archives, output),
            kwargs={"num_shards": SHARDS},
        )
        other.start()
        other.join(1)
        assert other.is_alive() and not output.exists()
    other.join(60)
    assert lib.contents(output) == lib.contents(exported)


def test_a_full_disk_is_noticed_before_anything_is_written(archives, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200_000))
    with pytest.raises(BuildError, match="200,000 bytes free"):
        lib.export("imagenet2012", archives, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("partial.*/*.tar"))


def test_the_space_that_is_asked_for_is_enough_and_not_much_more(archives, tmp_path, monkeypatch):
    output = tmp_path / "out"
    free = 0

    def free_space(_):
        return shutil._ntuple_diskusage(1 << 40, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", free_space)
    with pytest.raises(BuildError) as caught:
        lib.export("imagenet2012", archives, output)
    needed = int(str(caught.value).split(" bytes free, and ")[1].split()[0].replace(",", ""))
    free = needed
    lib.export("imagenet2012", archives, output)
    samples = sum(info["num_samples"] for info in lib.info_of(output).values())
    written = sum(path.stat().st_size for path in output.glob("*.tar"))
    converted = 80_000  # CMYK images and the PNG, larger as JPEG
    assert written - converted <= needed <= written + 1024 * samples


def test_flush_waits_for_the_disk_before_the_folder_appears(archives, tmp_path, monkeypatch):
    output, flushed = tmp_path / "out", []
    ordinary = os.fsync

    def fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path.name, output.exists()))
        ordinary(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    builder = lib.builder_of("imagenet2012", tmp_path / "data")
    builder.flush = True
    imagenet_family.export_webdataset(builder, output, manual_dir=archives)
    assert {(path.name, False) for path in output.iterdir()} <= set(flushed)
    assert (tmp_path.name, True) in flushed

"""Builds that are killed, stopped, doubled and changed; `faults.py` does more of it."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import parity
import pytest
from archives_lib import REPOSITORY, make_family
from kill_lib import STEPS

from imagenet_family.build import shard_writing, staging
from imagenet_family.shards import manifest

FAULTS = REPOSITORY / "tests" / "support" / "faults.py"
FAMILY = {"train": 60, "val": 40, "test": 10, "v2": 12}


def run_faults(folder, *arguments):
    """Runs the harness in a process of its own, as this one may have threads; gives its totals."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "scripts")])
    done = subprocess.run(
        [sys.executable, str(FAULTS), "--folder", str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_kill_before_and_after_every_named_step(tmp_path):
    totals = run_faults(tmp_path, "--steps", "--points", "0")
    assert totals["killed"] == totals["trials"] == 2 * len(STEPS)
    assert totals["kept"] > 100


def test_kill_before_any_change_of_the_file_system(tmp_path):
    totals = run_faults(tmp_path, "--every", "9", "--points", "0")
    assert totals["killed"] == totals["trials"] >= 10


def test_kill_at_random_times(tmp_path):
    totals = run_faults(tmp_path, "--points", "14", "--seed", "5")
    assert totals["killed"] == 14


def command(archives, data_dir, *options, name="imagenet2012"):
    return [
        *(sys.executable, "-m", "imagenet_family", "build", name, "--manual_dir", str(archives)),
        *("--data_dir", str(data_dir), "--no_verify_checksums", "--num_shards", "4", *options),
    ]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stop_before_the_end(name, archives, data_dir, monkeypatch, **options):
    """Leaves a build as a kill just before its end does: all shards whole, no dataset."""

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            parity.build_ours(name, archives, data_dir, **options)
    return data_dir / "ours" / name


def staged(parent):
    (folder,) = parent.glob("partial.*.????????????????")
    return folder


def test_finished_shards_are_used_again(archives, tmp_path, monkeypatch):
    parent = stop_before_the_end("imagenet2012", archives, tmp_path, monkeypatch, num_shards=4)
    shards = {path.name: path.stat().st_ino for path in staged(parent).iterdir()}
    assert len(shards) == 12 and all("-of-" in name for name in shards)
    assert not list(parent.glob("[0-9]*"))
    built = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=4)
    for name, inode in shards.items():
        assert Path(built.data_path / name).stat().st_ino == inode
    assert sorted(path.name for path in parent.iterdir()) == [".5.1.0.lock", "5.1.0"]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a flipped bit": lambda data: flipped(data, 3000),
    "longer": lambda data: data + b"x",
    "a record less": lambda data: data[: -int.from_bytes(data[:8], "little") - 16],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_damaged_shard_is_written_again(damage, file_format, archives, tmp_path, monkeypatch):
    options = {"num_shards": 3, "file_format": file_format}
    whole = parity.build_ours("imagenet2012", archives, tmp_path / "whole", **options)
    parent = stop_before_the_end("imagenet2012", archives, tmp_path, monkeypatch, **options)
    (shard,) = staged(parent).glob("*validation*-00001-of-00003")
    shard.write_bytes(DAMAGE[damage](shard.read_bytes()))
    built = parity.build_ours("imagenet2012", archives, tmp_path, **options)
    assert files(built.data_path) == files(whole.data_path)


@pytest.mark.parametrize(
    "note", [b"", b"{", b"[]", b"null", b'{"num_examples": 1}', b"\xff\xfe", b"[" * 100_000]
)
def test_damaged_note_costs_one_shard(note, archives, tmp_path, monkeypatch):
    whole = parity.build_ours("imagenet2012", archives, tmp_path / "whole", num_shards=3)
    parent = stop_before_the_end("imagenet2012", archives, tmp_path, monkeypatch, num_shards=3)
    (path,) = parent.glob("partial.*.notes/*validation*-00001-of-00003.json")
    path.write_bytes(note)
    built = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=3)
    assert files(built.data_path) == files(whole.data_path)


@pytest.mark.parametrize("change", ["shards", "format", "archive", "max_examples", "library"])
def test_left_overs_of_another_plan_are_not_mixed_in(change, archives, tmp_path, monkeypatch):
    parent = stop_before_the_end("imagenet2012", archives, tmp_path, monkeypatch, num_shards=4)
    old = staged(parent)
    options = {"num_shards": 4}
    if change == "shards":
        options = {"num_shards": 5}
    elif change == "format":
        options["file_format"] = "array_record"
    elif change == "max_examples":
        options["max_examples_per_split"] = 8
    elif change == "library":
        monkeypatch.setattr(shard_writing, "_FORMAT", shard_writing._FORMAT + 1)
    else:
        archives = tmp_path / "others"
        make_family(archives, train=60, val=40, test=10, v2=12, seed=1)
    built = parity.build_ours("imagenet2012", archives, tmp_path, **options)
    assert not old.exists()
    fresh = parity.build_ours("imagenet2012", archives, tmp_path / "fresh", **options)
    assert files(built.data_path) == files(fresh.data_path)


def test_shards_of_a_damaged_archive_are_not_those_of_the_one_fetched_again(
    archives, tmp_path, monkeypatch
):
    copy = tmp_path / "copy"
    shutil.copytree(archives, copy)  # with its times, as `wget` and `rsync -t` set them
    archive = copy / "ILSVRC2012_img_val.tar"
    whole = archive.read_bytes()
    status = archive.stat()
    with archive.open("r+b") as file:  # in the data of an image, and not in its header
        at = whole.index(b"\xff\xd9", 1024) - 9
        file.seek(at)
        file.write(flipped(whole, at)[at : at + 1])
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    stop_before_the_end("imagenet2012", copy, tmp_path, monkeypatch, num_shards=4)
    archive.write_bytes(whole)
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    built = parity.build_ours("imagenet2012", copy, tmp_path, num_shards=4)
    fresh = parity.build_ours("imagenet2012", archives, tmp_path / "fresh", num_shards=4)
    assert files(built.data_path) == files(fresh.data_path)


@pytest.mark.parametrize(
    "step",
    [
        "imagenet_family.shards.manifest.write",
        "tensorflow_datasets.core.DatasetInfo.write_to_directory",
        "imagenet_family.storage.files.flush_folder",
        "imagenet_family.storage.files.rename",
    ],
)
def test_a_build_that_is_interrupted_at_its_end_keeps_its_shards(
    step, archives, tmp_path, monkeypatch
):
    from imagenet_family import cli

    def interrupt(*args):
        raise KeyboardInterrupt

    arguments = [*command(archives, tmp_path)[3:], "--flush"]
    with monkeypatch.context() as patch:
        patch.setattr(step, interrupt)
        assert cli.main(arguments) == 130
    parent = tmp_path / "imagenet2012"
    assert not (parent / "5.1.0").exists()
    kept = {path.name: path.stat().st_ino for path in staged(parent).glob("*-of-0000?")}
    assert len(kept) == 12
    assert cli.main(arguments) == 0
    built = {path.name: path.stat().st_ino for path in (parent / "5.1.0").iterdir()}
    assert kept.items() <= built.items()


def test_overwriting_never_leaves_half_of_the_old_dataset(archives, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    old = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=2)
    removed = []

    def stop(folder):
        removed.append(folder)
        if Path(folder).exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(staging, "_remove_tree", stop)
        with pytest.raises(KeyboardInterrupt):
            parity.build_ours(
                *("imagenet2012", archives, tmp_path),
                download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS,
                num_shards=3,
            )
    assert removed and not old.data_path.exists()
    built = parity.build_ours("imagenet2012", archives, tmp_path, num_shards=3)
    names = sorted(path.name for path in built.data_path.parent.iterdir())
    assert names == [".5.1.0.lock", "5.1.0"]
    assert built.info.splits["train"].num_shards == 3


def test_two_builds_at_once_give_one_whole_dataset(archives, tmp_path):
    whole = parity.build_ours("imagenet2012", archives, tmp_path / "whole", num_shards=4)
    data_dir = tmp_path / "data"
    both = [
        subprocess.Popen(
            command(archives, data_dir), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        # Also the one that had to wait says what the dataset holds.
        assert "imagenet2012/5.1.0 validation: 40 examples, 4 shards" in output
    assert files(data_dir / "imagenet2012" / "5.1.0") == files(whole.data_path)


def test_second_build_says_that_it_waits(archives, tmp_path):
    data_dir = tmp_path / "data"
    with staging.build_lock(data_dir / "imagenet2012" / "5.1.0"):
        waiting = subprocess.Popen(
            command(archives, data_dir), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )
        for line in waiting.stderr:
            if "Another process is building" in line:
                break
        assert waiting.poll() is None
        assert not list(data_dir.rglob("*-of-*"))
    waiting.stderr.read()
    assert waiting.wait(timeout=120) == 0


def test_ctrl_c_ends_at_once_and_says_how_to_go_on(archives, tmp_path):
    data_dir = tmp_path / "data"
    with staging.build_lock(data_dir / "imagenet2012" / "5.1.0"):
        building = subprocess.Popen(
            command(archives, data_dir), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )
        for line in building.stderr:
            if "Another process is building" in line:
                break
        time.sleep(random.Random(0).random() / 10)
        building.send_signal(signal.SIGINT)
        errors = building.stderr.read()
        assert building.wait(timeout=60) == 130
    assert "The same command again goes on" in errors and "Traceback" not in errors
    assert subprocess.run(command(archives, data_dir), cwd=REPOSITORY).returncode == 0


def test_killed_worker_is_told(tmp_path):
    totals = run_faults(tmp_path, "--workers", "--points", "3", "--seed", "1")
    assert totals["killed"] == 3


@pytest.mark.parametrize("options", [(), ("--fail_if_exists",)])
def test_a_folder_without_a_dataset_is_none(archives, tmp_path, capsys, options):
    from imagenet_family import cli

    folder = tmp_path / "data" / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    arguments = command(archives, tmp_path / "data", *options)[3:]
    assert cli.main(arguments) == 1
    assert f"{folder} exists but holds no prepared dataset" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert (folder / "dataset_info.json").exists()


def test_two_builders_finish_at_once_each_in_its_way(tmp_path):
    from tensorflow_datasets.core import utils

    from imagenet_family import tfds_internals

    first, second = (staging.Staging(tmp_path / name, "0" * 64) for name in ("first", "second"))
    begun = tfds_internals.prepared_in(first.target, first.filling())
    with tfds_internals.prepared_in(second.target, second.filling(flush=True)):
        begun.__enter__()
        replaced = utils.incomplete_dir
    with utils.incomplete_dir(dirname=first.target) as temporary:
        assert temporary == first.folder
        Path(temporary, "file").touch()
    begun.__exit__(None, None, None)
    assert utils.incomplete_dir is replaced
    with utils.incomplete_dir(dirname=second.target) as temporary:
        assert temporary != second.folder  # TFDS's own again
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "first", "second"]


def test_dry_run_prints_the_plan_and_builds_nothing(archives, tmp_path, capsys):
    from imagenet_family import cli

    arguments = command(archives, tmp_path / "data", "--dry_run")[3:]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "data" / "imagenet2012").exists()
    planned = [
        int(found.replace(",", "")) for found in re.findall(r"shards?, ([\d,]+) bytes", printed)
    ]
    assert cli.main(arguments[:-1]) == 0
    folder = tmp_path / "data" / "imagenet2012" / "5.1.0"
    # The family has images that are converted, so that the plan of train is not exact.
    for split, size in zip(("train", "validation", "test"), planned, strict=True):
        written = sum(
            path.stat().st_size for path in folder.glob(f"*-{split}.*") if "-of-" in path.name
        )
        examples = {"train": 60, "validation": 40, "test": 10}[split]
        assert split == "train" or written == size + 16 * examples
    assert "4 shards" in printed and "bytes free" in printed


def test_flush_waits_for_the_disk_before_the_dataset_appears(archives, tmp_path, monkeypatch):
    from imagenet_family import cli

    flushed = {}
    fsync = os.fsync

    def note_and_fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        prepared = (tmp_path / "data" / "imagenet2012" / "5.1.0").exists()
        flushed[path.name] = prepared
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note_and_fsync)
    arguments = command(archives, tmp_path / "data")[3:]
    assert cli.main([*arguments, "--flush"]) == 0
    written = [path.name for path in (tmp_path / "data" / "imagenet2012" / "5.1.0").iterdir()]
    assert len(written) == 16
    assert all(flushed[name] is False for name in written)
    assert flushed["imagenet2012"] is True  # the folder above, with the name in it

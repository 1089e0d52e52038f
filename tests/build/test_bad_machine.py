"""What a machine may do to a build: full and read-only disks, no permission, changing archives."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from command_lib import assert_nothing_prepared, build, said
from kill_lib import tree
from machine_limits import ordinary_user, small_disk

from imagenet_family import cli
from imagenet_family.build import preflight, shard_writing
from imagenet_family.examples import images

VAL = "ILSVRC2012_img_val.tar"
OPTIONS = ("--num_shards", "4")
FORMATS = ["tfrecord", "array_record"]
FAMILY = {"train": 240, "val": 200, "test": 60, "v2": 12}


@pytest.fixture(scope="module")
def references(archives, tmp_path_factory):
    """Gives the files of undisturbed builds, by file format."""
    found = {}
    for file_format in FORMATS:
        data_dir = tmp_path_factory.mktemp("reference")
        assert build(archives, data_dir, "imagenet2012", *OPTIONS, *formatted(file_format)) == 0
        found[file_format] = tree(version(data_dir)), size(version(data_dir))
    return found


def formatted(file_format):
    return "--file_format", file_format


def version(data_dir):
    return data_dir / "imagenet2012" / "5.1.0"


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("twentieth", range(20))
def test_disk_that_fills_up(
    twentieth, file_format, archives, references, tmp_path, capsys, monkeypatch
):
    """Another process takes the space that was there when it was checked."""
    expected, needed = references[file_format]
    options = (*OPTIONS, *formatted(file_format), "--download_dir", str(tmp_path / "downloads"))
    bytes_free = 4096 + needed * twentieth // 20
    with small_disk(tmp_path / "disk", f"size={bytes_free}") as disk:
        data_dir = disk.folder / "data"
        with monkeypatch.context() as patch:
            patch.setattr(preflight, "check", lambda *args: None)
            assert build(archives, data_dir, "imagenet2012", *options) == 1
        message = said(capsys)
        assert "No space left" in message and "Make space" in message
        assert str(data_dir) in message
        assert_nothing_prepared(data_dir)
        noted = {
            path.stem: (path.parent.with_suffix("") / path.stem).stat().st_ino
            for path in data_dir.rglob("partial.*.notes/*.json")
        }
        disk.remount("size=64m")
        assert build(archives, data_dir, "imagenet2012", *options) == 0
        assert tree(version(data_dir)) == expected
        for name, inode in noted.items():
            assert (version(data_dir) / name).stat().st_ino == inode, f"{name} was written again"


@pytest.mark.parametrize("twentieth", range(20))
def test_disk_that_is_too_small_is_told_before_the_work(
    twentieth, archives, references, tmp_path, capsys
):
    _, needed = references["tfrecord"]
    options = (*OPTIONS, "--download_dir", str(tmp_path / "downloads"))
    with small_disk(tmp_path / "disk", f"size={8192 + needed * twentieth // 21}") as disk:
        assert build(archives, disk.folder / "data", "imagenet2012", *options) == 1
        message = said(capsys)
        assert "nothing was written yet" in message or "No space left" in message
        assert not list(disk.folder.rglob("*-of-*"))
        assert_nothing_prepared(disk.folder)


def test_disk_without_room_for_files(archives, tmp_path, capsys):
    for inodes in range(2, 12):
        with small_disk(tmp_path / f"disk{inodes}", f"size=8m,nr_inodes={inodes}") as disk:
            assert build(archives, disk.folder / "data", "imagenet2012", *OPTIONS) == 1
            assert "No space left" in said(capsys)
            assert_nothing_prepared(disk.folder)


def test_full_disk_for_downloads_and_indexes(archives, references, tmp_path):
    """The index cannot be saved, which costs time only."""
    with small_disk(tmp_path / "disk", "size=8k") as disk:
        options = (*OPTIONS, "--download_dir", str(disk.folder))
        assert build(archives, tmp_path / "data", "imagenet2012", *options) == 0
    assert tree(version(tmp_path / "data")) == references["tfrecord"][0]


def test_full_disk_for_a_decompressed_archive(archives, tmp_path, capsys):
    with small_disk(tmp_path / "disk", "size=8k") as disk:
        options = ("--download_dir", str(disk.folder))
        assert build(archives, tmp_path / "data", "imagenet_v2/threshold-0.7", *options) == 1
        assert "no space left" in said(capsys)
        assert not list(disk.folder.rglob("*.tar*")) or not list(disk.folder.rglob("*.tmp"))
    assert_nothing_prepared(tmp_path / "data")


def test_read_only_disk(archives, tmp_path, capsys):
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        disk.remount("ro")
        options = (*OPTIONS, "--download_dir", str(tmp_path / "downloads"))
        assert build(archives, disk.folder / "data", "imagenet2012", *options) == 1
        message = said(capsys)
        assert "Read-only" in message and "can be written to" in message
        assert build(archives, disk.folder / "data", "imagenet2012", "--dry_run") == 1
        assert "Read-only" in said(capsys)


def test_dataset_on_a_read_only_disk_is_used(archives, tmp_path):
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        assert build(archives, disk.folder / "data", "imagenet2012") == 0
        disk.remount("ro")
        assert build(archives, disk.folder / "data", "imagenet2012") == 0


@pytest.fixture
def open_folder(references):
    """A folder that everybody can come to, unlike `tmp_path`.

    There have been builds by now, so that whatever they import was imported by this user.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_data_dir_without_permission(archives, open_folder, capsys):
    shutil.copytree(archives, open_folder / "archives")
    (open_folder / "archives").chmod(0o755)
    data_dir = open_folder / "data"
    data_dir.mkdir()
    data_dir.chmod(0o555)
    with ordinary_user():
        assert build(open_folder / "archives", data_dir, "imagenet2012") == 1
        message = said(capsys)
        assert "Permission denied" in message and str(data_dir) in message
    assert_nothing_prepared(data_dir)


def test_archive_without_permission(archives, open_folder, capsys):
    shutil.copytree(archives, open_folder / "archives")
    (open_folder / "archives").chmod(0o755)
    (open_folder / "archives" / VAL).chmod(0)
    data_dir = open_folder / "data"
    data_dir.mkdir()
    data_dir.chmod(0o777)
    with ordinary_user():
        assert build(open_folder / "archives", data_dir, "imagenet2012") == 1
        message = said(capsys)
        assert "permission" in message and VAL in message
    (open_folder / "archives").chmod(0)
    with ordinary_user():
        assert build(open_folder / "archives", data_dir, "imagenet2012") == 1
        message = said(capsys)
        assert "permissions of the folder" in message and str(open_folder / "archives") in message
    assert_nothing_prepared(data_dir)


def appended(path):
    with path.open("ab") as file:
        file.write(b"x")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def replaced(path):
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def rewritten_with_the_same_times(path):
    """Puts zeros over the headers of the second half, as no program would do by accident."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    with path.open("rb+") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def deleted(path):
    path.unlink()


def folder_instead(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "change",
    [appended, cut, replaced, rewritten_with_the_same_times, deleted, folder_instead],
    ids=lambda change: change.__name__,
)
def test_archive_that_changes_after_it_was_indexed(change, archives, tmp_path, capsys, monkeypatch):
    own = tmp_path / "archives"
    shutil.copytree(archives, own)
    write_splits = shard_writing.write_splits

    def change_and_write(*args, **kwargs):
        change(own / VAL)
        return write_splits(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writing, "write_splits", change_and_write)
        assert build(own, tmp_path / "data", "imagenet2012", *OPTIONS) == 1
    message = said(capsys)
    assert str(own / VAL) in message
    assert_nothing_prepared(tmp_path / "data")
    with contextlib.suppress(OSError):
        (own / VAL).rmdir()
    shutil.copy2(archives / VAL, own / VAL)
    assert build(own, tmp_path / "data", "imagenet2012", *OPTIONS) == 0


def test_archive_that_changes_while_a_shard_is_read(archives, tmp_path, capsys, monkeypatch):
    own = tmp_path / "archives"
    shutil.copytree(archives, own)
    normalize = images.normalize

    def touch_and_normalize(data):
        for path in own.glob("*.tar"):
            os.utime(path, ns=(0, 5))
        return normalize(data)

    with monkeypatch.context() as patch:
        patch.setattr(images, "normalize", touch_and_normalize)
        assert build(own, tmp_path / "data", "imagenet2012", *OPTIONS) == 1
    assert "changed since it was indexed" in said(capsys)
    assert_nothing_prepared(tmp_path / "data")
    assert not list((tmp_path / "data" / "imagenet2012").rglob("*-of-*"))


@pytest.mark.parametrize(
    ("kind", "expected"), [("folder", "is a folder"), ("no permission", "cannot be read")]
)
@pytest.mark.parametrize(
    ("name", "file"),
    [("imagenet2012_real", "real.json"), ("imagenet2012_subset/1pct", "1percent.txt")],
)
def test_label_file_that_cannot_be_read(name, file, kind, expected, archives, open_folder, capsys):
    own, data_dir = open_folder / "archives", open_folder / "data"
    shutil.copytree(archives, own)
    own.chmod(0o755)
    data_dir.mkdir()
    data_dir.chmod(0o777)
    if kind == "folder":
        (own / file).unlink()
        (own / file).mkdir()
    else:
        (own / file).chmod(0)
    with ordinary_user():
        assert build(own, data_dir, name) == 1
        message = said(capsys)
        assert str(own / file) in message and expected in message
        cli.main(["verify", "--manual_dir", str(own), "--dataset", name])
        assert f"{own / file}: the file cannot be read" in capsys.readouterr().out
    assert_nothing_prepared(data_dir)


def test_prepared_datasets_without_permission(open_folder, capsys):
    (open_folder / "imagenet2012").mkdir(mode=0)
    with ordinary_user():
        assert cli.main(["verify", "--data_dir", str(open_folder)]) == 1
    assert f"{open_folder / 'imagenet2012'}" in said(capsys)


def test_no_archive_at_all(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert build(tmp_path / "empty", tmp_path / "data", "imagenet2012") == 1
    message = said(capsys)
    assert VAL in message and "https://image-net.org" in message and "--manual_dir" in message


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_archive_that_is_no_file(kind, tmp_path, capsys):
    (tmp_path / VAL).mkdir() if kind == "folder" else os.mkfifo(tmp_path / VAL)
    assert build(tmp_path, tmp_path / "data", "imagenet2012") == 1
    assert str(tmp_path / VAL) in said(capsys)
    assert_nothing_prepared(tmp_path / "data")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["imagenet"], "no dataset"),
        (["imagenet_v2/none"], "no config"),
        (["imagenet2012:9.9.9"], "9.9.9"),
        (["imagenet2012:5.0.0"], "5.0.0"),
        (["imagenet2012", "--file_format", "csv"], "file format"),
        (["imagenet2012", "--num_shards", "100000"], "shards"),
    ],
)
def test_wrong_usage(arguments, expected, archives, tmp_path, capsys):
    assert build(archives, tmp_path / "data", *arguments) == 1
    assert expected in said(capsys)
    assert_nothing_prepared(tmp_path / "data")


@pytest.mark.parametrize("where", ["manual_dir", "data_dir", "above data_dir"])
def test_file_in_place_of_a_folder(where, archives, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    manual_dir = file if where == "manual_dir" else archives
    data_dir = {"data_dir": file, "above data_dir": file / "below"}.get(where, tmp_path / "data")
    assert build(manual_dir, data_dir, "imagenet2012") == 1
    assert str(file) in said(capsys)


def test_missing_classes_are_built_and_told(archives, tmp_path, caplog):
    assert build(archives, tmp_path / "data", "imagenet2012") == 0
    assert "expected 1,281,167 examples of 1,000 classes" in caplog.text
    assert "expected 100,000 examples as published" in caplog.text  # whose labels are secret


def test_too_few_open_files(archives, tmp_path):
    """In a process of its own, as a limit can only be lowered."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    command = f"ulimit -n 60; {sys.executable} -m imagenet_family build imagenet2012"
    done = subprocess.run(
        ["bash", "-c", f"{command} --manual_dir {archives} --data_dir {tmp_path / 'data'}"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "files open at once" in done.stderr and "ulimit" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_prepared(tmp_path / "data")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_archives_of_an_owner_without_a_name(archives, references, tmp_path, capsys):
    folder = tmp_path / "archives"
    shutil.copytree(archives, folder)
    for path in (folder, *folder.iterdir()):
        os.chown(path, 54321, 54321)
    with pytest.raises(KeyError):
        (folder / VAL).owner()
    assert build(folder, tmp_path / "data", "imagenet2012", *OPTIONS) == 0
    assert tree(version(tmp_path / "data")).keys() == references["tfrecord"][0].keys()
    for path in (tmp_path / "data").rglob("*"):
        os.chown(path, 54321, 54321)
    data_dir = ["--data_dir", str(tmp_path / "data")]
    assert cli.main(["verify", *data_dir, "--dataset", "imagenet2012"]) == 0
    cli.main(["verify", "--manual_dir", str(folder), "--dataset", "imagenet2012"])
    assert "imagenet2012: can be built: train, validation, test" in capsys.readouterr().out
    template = ["predictions-template", "imagenet2012", "--output_dir", str(tmp_path / "out")]
    assert cli.main([*template, *data_dir]) == 0
    export = ["export-wds", "imagenet2012", "--output_dir", str(tmp_path / "wds")]
    assert cli.main([*export, *data_dir, "--manual_dir", str(folder)]) == 0

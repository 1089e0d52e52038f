"""Files by name: taken literally, there whole or not at all, the same on a disk and in a store."""

import errno
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
import pytest
import s3fs
from object_store_lib import ROOT

from imagenet_family.errors import BuildError, MissingFileError
from imagenet_family.storage import files
from imagenet_family.storage.paths import join

# What a name could be taken for instead, and the names that would then be meant by it.
NAMES = {
    "star*": ["starfish", "star", "star*x"],
    "**": ["a", "a/b"],
    "q?x": ["qax", "q", "q/x"],
    "run[1]": ["run1", "run", "run["],
    "[!a]": ["b", "!"],
    "{x,y}": ["x", "y"],
    "a//b": ["a/b", "a", "b", "a/"],
    "a::b": ["a", "b", "a:"],
    "s3:": ["s3", "s3:x"],
    "~": ["root", "home", "~x"],
    "~root": ["root", "~"],
    "$HOME": ["HOME", "$"],
    "with space": ["with", "space", "with+space", "with%20space"],
    "plus+": ["plus ", "plus"],
    "per%2Fcent": ["per/cent", "per"],
    "100%": ["100", "100%25"],
    "hash#1": ["hash", "hash#"],
    "and&=;": ["and", "and&"],
    "back\\slash": ["back/slash", "back"],
    "quo'te\"": ["quote"],
    "dötted.é": ["dötted", "d\u00f6tted.e\u0301"],
    ".hidden": ["hidden", "."[:0] + "_hidden"],
    "-rf": ["rf"],
    "backup~": ["backup"],
}
# What is below each name: plain, deep, hidden, ending like an editor's back-up.
CONTENT = ["one.json", "deep/er/three", ".four", "five~"]


@pytest.fixture(scope="module")
def store(store):
    """The store, which this process is told of."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store
        s3fs.S3FileSystem.clear_instance_cache()


class Disk:
    """A folder of this machine; all that is in it by name."""

    def __init__(self, root):
        self.root = os.fspath(root)

    def put(self, name, content):
        path = Path(self.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def all(self):
        paths = [path for path in Path(self.root).rglob("*") if path.is_file()]
        return {
            os.path.relpath(path, self.root): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in paths
        }


class Bucket:
    """A bucket; all that is in it, asked for without the layer that is tested."""

    def __init__(self, client, name):
        self.client = client
        self.name = name
        self.root = f"s3://{name}"

    def put(self, name, content):
        self.client.put_object(Bucket=self.name, Key=name, Body=content)

    def all(self):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {
            item["Key"]: (item["ETag"], item["LastModified"])
            for page in pages
            for item in page.get("Contents", [])
        }


@pytest.fixture
def bucket(store):
    client = boto3.client("s3", endpoint_url=store.url)
    name = f"bucket-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name)


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    if request.param == "disk":
        return Disk(tmp_path)
    return request.getfixturevalue("bucket")


# On a disk two slashes are the same as one.
@pytest.fixture(params=[*NAMES, *(f"disk {name}" for name in NAMES if "//" not in name)])
def named(request, tmp_path):
    """A place with a folder of an unusual name, and beside it all that it could be taken for."""
    name = request.param.removeprefix("disk ")
    in_bucket = name == request.param
    place = request.getfixturevalue("bucket") if in_bucket else Disk(tmp_path)
    for content in CONTENT:
        place.put(f"above/{name}/data/{content}", f"{name} {content}".encode())
    for each in NAMES[name]:
        for content in CONTENT[:2]:
            place.put(f"above/{each}/data/{content}", f"{each} {content}".encode())
    return place, f"above/{name}/data", in_bucket


def changed(before, after):
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_nothing_but_what_is_named_is_found_written_and_removed(named):
    place, folder, in_bucket = named
    path = f"{place.root}/{folder}"
    before = place.all()
    check_that_all_is_found(path, folder)
    assert place.all() == before

    files.write_bytes(f"{path}/note", b"1")
    with files.whole_file(f"{path}/file") as file:
        file.write(b"22")
    with files.whole_name(f"{path}/name") as temporary:
        Path(temporary).write_bytes(b"333")
    written = {"note": b"1", "file": b"22", "name": b"333"}
    assert changed(before, place.all()) == {f"{folder}/{name}" for name in written}
    assert {name: files.read_bytes(f"{path}/{name}") for name in written} == written

    before = place.all()
    if in_bucket:
        files.copy_all(path, f"{path}*copy", ["note", "deep/er/three"])
        made = {f"{folder}*copy/note", f"{folder}*copy/deep/er/three"}
        assert changed(before, place.all()) == made
        assert files.read_bytes(f"{path}*copy/note") == b"1"
        before = place.all()

    files.remove(f"{path}/deep/er/three")
    files.remove(f"{path}/missing")
    files.remove_named(path, "o", ".json")
    assert changed(before, place.all()) == {f"{folder}/deep/er/three", f"{folder}/one.json"}

    files.remove_tree(f"{place.root}/{folder.removesuffix('/data')}")
    files.remove_tree(path)
    below = {name for name in before if name.startswith(folder.removesuffix("data"))}
    assert changed(before, place.all()) == below
    assert not files.exists(path) and files.listing(path) == []


def check_that_all_is_found(path, folder):
    assert files.listing(path) == sorted({name.partition("/")[0] for name in CONTENT})
    assert files.listing(f"{path}/deep") == ["er"]
    assert files.exists(path) and files.is_folder(path)
    for content in CONTENT[:2]:
        expected = f"{folder.removeprefix('above/').removesuffix('/data')} {content}".encode()
        file = join(path, content)
        assert not files.is_folder(file)
        assert files.read_bytes(file, 1000) == expected
        assert files.size(file) == files.stamp(file)[0] == len(expected)
        with files.open_read(file) as opened:
            assert opened.read() == expected
    assert not files.exists(f"{path}/six") and files.listing(f"{path}/six") == []


def test_an_empty_name_and_a_mark_of_a_folder_are_inside_it(bucket):
    place = bucket
    for name in ("a", "a/", "a//", "a//b", "a/c/", "a/c/d", "ab", "b/a/c"):
        place.put(name, name.encode())
    before = place.all()
    assert files.listing(f"{place.root}/a") == ["c"]
    files.remove_tree(f"{place.root}/a")
    assert changed(before, place.all()) == {"a/", "a//", "a//b", "a/c/", "a/c/d"}
    assert files.exists(f"{place.root}/a") and not files.is_folder(f"{place.root}/a")


def test_a_change_is_noticed(place):
    place.put("file", b"1")
    path = f"{place.root}/file"
    before = files.stamp(path)
    assert files.stamp(path) == before
    place.put("file", b"2")
    assert files.stamp(path) != before
    for missing in (f"{place.root}/missing", f"{place.root}/missing/too"):
        with pytest.raises(FileNotFoundError):
            files.stamp(missing)
        with pytest.raises(FileNotFoundError):
            files.read_bytes(missing, 10)


def test_listings_are_not_remembered(place):
    folder = f"{place.root}/folder"
    assert files.listing(folder) == [] and not files.exists(f"{folder}/one")
    place.put("folder/one", b"")
    assert files.listing(folder) == ["one"] and files.exists(f"{folder}/one")
    place.put("folder/two", b"")
    assert files.listing(folder) == ["one", "two"]


def test_a_file_above_the_limit_is_not_read(place):
    place.put("file", bytes(11))
    assert files.read_bytes(f"{place.root}/file", 11) == bytes(11)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        files.read_bytes(f"{place.root}/file", 10)


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), MissingFileError("gone")])
@pytest.mark.parametrize("size", [10, 12 << 20])
@pytest.mark.parametrize("way", ["whole_file", "whole_name"])
def test_what_fails_leaves_what_was_there(error, size, way, place):
    place.put("kept", b"as it was")
    before = place.all()
    for name in ("kept", "new"):
        with pytest.raises(type(error)), getattr(files, way)(f"{place.root}/{name}") as target:
            if way == "whole_name":
                Path(target).write_bytes(bytes(size))
            else:
                target.write(bytes(size))
            raise error
    assert place.all() == before


@pytest.mark.parametrize("size", [0, 1, 12 << 20])
def test_what_is_written_is_what_is_read(size, place):
    content = os.urandom(size)
    place.put("kept", b"replaced")
    files.write_bytes(f"{place.root}/bytes", content)
    with files.whole_file(f"{place.root}/kept", flush=True) as file:
        file.writelines([content[: size // 2], memoryview(content)[size // 2 :]])
    for name in ("bytes", "kept"):
        assert files.read_bytes(f"{place.root}/{name}") == content
    assert sorted(place.all()) == ["bytes", "kept"]


def test_system_errors_say_what_to_do(tmp_path):
    for write in (
        lambda path: files.write_bytes(path, b""),
        lambda path: files.whole_file(path).__enter__(),
    ):
        with pytest.raises(BuildError, match=r"Cannot write .*/missing/file: .*exists or can be"):
            write(tmp_path / "missing" / "file")
    with pytest.raises(BuildError, match=r"Cannot write .*file: .*Make space"):  # noqa: SIM117
        with files.whole_file(tmp_path / "file"):
            raise OSError(errno.ENOSPC, "full")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_this_machine(tmp_path):
    folder = tmp_path / "a" / "b"
    files.make_folder(folder)
    files.make_folder(folder)
    (folder / "file").touch()
    (folder / "link").symlink_to(tmp_path)
    files.rename(folder, tmp_path / "c")
    assert files.listing(tmp_path / "c") == ["file", "link"]
    (tmp_path / "d").mkdir()
    with pytest.raises(FileExistsError):
        files.rename(tmp_path / "c", tmp_path / "d")
    files.remove_tree(tmp_path / "c" / "file")
    files.remove_tree(tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a name")
def test_files_of_an_owner_without_a_name(tmp_path):
    code = """
import os, sys
from imagenet_family.storage import files
folder = sys.argv[1]
os.setgid(54321)
os.setuid(54321)
files.write_bytes(f"{folder}/one", b"1")
assert files.stamp(f"{folder}/one")[0] == files.size(f"{folder}/one") == 1
assert files.replaced_ns(f"{folder}/one")
assert files.exists(f"{folder}/one") and files.is_folder(folder)
assert files.listing(folder) == ["one"] and files.read_bytes(f"{folder}/one", 5) == b"1"
files.rename(f"{folder}/one", f"{folder}/two")
files.flush_folder(folder)
files.remove_tree(folder)
assert not files.exists(folder)
"""
    with tempfile.TemporaryDirectory() as above:  # pytest's own are for one user
        folder = Path(above, "folder")
        folder.mkdir()
        for path in (above, folder):
            os.chown(path, 54321, 54321)
        environment = {name: value for name, value in os.environ.items() if name != "HOME"}
        environment["PYTHONPATH"] = str(ROOT)
        subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True)
        assert not folder.exists()

"""Archives in remote stores: the same index, by range requests only."""

import gzip
import os
import pickle
import subprocess
import sys
import textwrap
import uuid

import fsspec
import pytest
import s3fs
from archive_cases import pack
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem
from fuzz_archives import indexed_members, tarfile_members

from imagenet_family.copies import ArchiveReader, index_archive
from imagenet_family.copies.tar import parallel
from imagenet_family.errors import ArchiveError, MissingFileError
from imagenet_family.storage import stores

ENTRIES = [(f"n{i}.JPEG", os.urandom(20_000 + 37 * i)) for i in range(120)]
FLAT = pack(ENTRIES)
NESTED = pack([(f"c{c}.tar", pack(ENTRIES[8 * c : 8 * c + 8])) for c in range(15)])


@pytest.fixture
def folder():
    """A folder of fsspec's memory file system."""
    name = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    fs.makedirs(name)
    yield f"memory:/{name}"
    fs.rm(name, recursive=True)


@pytest.fixture
def requests(monkeypatch):
    """Records (path, start, end) of what is read; whole files cannot be opened."""
    made = []
    cat_file = MemoryFileSystem.cat_file

    def recorded(self, path, start=None, end=None, **options):
        made.append((path, start, end))
        return cat_file(self, path, start=start, end=end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", recorded)
    return made


def put(path: str, data: bytes) -> str:
    fs, name = fsspec.core.url_to_fs(path)
    fs.pipe_file(name, data)
    return path


def bytes_read(requests) -> int:
    return sum(end - start for _, start, end in requests)


@pytest.mark.parametrize("data", [FLAT, NESTED], ids=["flat", "nested"])
def test_index_and_members(folder, requests, data):
    path = put(f"{folder}/a.tar", data)
    index = index_archive(path, progress=False)
    assert index.files[0].path == index.source == path
    assert bytes_read(requests) < len(data) / 10, "only headers were read"
    requests.clear()
    assert indexed_members(index) == tarfile_members(data)
    assert len(requests) == len(index), "one request for a member"
    assert bytes_read(requests) == index.sizes.sum() + 512 * len(index)


def test_segments(folder, requests, monkeypatch):
    monkeypatch.setattr(parallel, "_REMOTE_PROBE", 1 << 15)
    monkeypatch.setattr(parallel, "_MIN_SEGMENT", 1 << 17)
    path = put(f"{folder}/a.tar", FLAT)
    index = index_archive(path, progress=False, workers=8)
    assert len(requests) > len(index)
    assert bytes_read(requests) < len(FLAT), "headers, and a search for one in each segment"
    assert indexed_members(index) == tarfile_members(FLAT)


def test_saved_index_in_a_remote_folder(folder, requests):
    path = put(f"{folder}/a.tar", NESTED)
    index_archive(path, cache_dir=f"{folder}/cache", progress=False)
    requests.clear()
    index = index_archive(path, cache_dir=f"{folder}/cache", progress=False)
    assert len(requests) < 30
    assert indexed_members(index) == tarfile_members(NESTED)
    put(path, FLAT)
    assert len(index_archive(path, cache_dir=f"{folder}/cache", progress=False)) == len(ENTRIES)


def test_gzip_into_a_remote_folder(folder):
    path = put(f"{folder}/a.tar.gz", gzip.compress(NESTED, 1))
    index = index_archive(path, cache_dir=f"{folder}/cache", progress=False)
    assert index.source == path
    assert index.files[0].path.startswith(f"{folder}/cache/")
    assert indexed_members(index) == tarfile_members(NESTED)
    put(path, gzip.compress(FLAT, 1))
    index = index_archive(path, cache_dir=f"{folder}/cache", progress=False)
    assert indexed_members(index) == tarfile_members(FLAT)


def test_damage_and_absence(folder):
    with pytest.raises(MissingFileError, match="memory://"):
        index_archive(f"{folder}/gone.tar", progress=False)
    with pytest.raises(ArchiveError, match="found a directory"):
        index_archive(folder, progress=False)
    path = put(f"{folder}/a.tar", NESTED[:-20_000])
    with pytest.raises(ArchiveError, match=r"memory://.*a\.tar: at offset"):
        index_archive(path, progress=False)


def test_changed_object(folder):
    path = put(f"{folder}/a.tar", NESTED)
    index = index_archive(path, progress=False)
    reader = ArchiveReader(index.files)
    first = 0, index.offsets[0], index.sizes[0], index.checks[0]
    reader.read(*first)
    put(path, pack(ENTRIES[::-1]))
    with pytest.raises(ArchiveError, match="changed since it was indexed"):
        reader.read(*first)
    with pytest.raises(ArchiveError, match="changed since it was indexed"):
        pickle.loads(pickle.dumps(reader)).read(*first)


def test_failing_store(folder, monkeypatch):
    monkeypatch.setattr(stores, "_PAUSES", (0.0, 0.0))
    path = put(f"{folder}/a.tar", NESTED)
    index = index_archive(path, progress=False)

    def fail(*_, **__):
        raise TimeoutError("no answer")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(ArchiveError, match=r"cannot be read: TimeoutError: no answer\. Check"):
        indexed_members(index)
    with pytest.raises(ArchiveError, match="cannot be read"):
        index_archive(path, progress=False)


def test_store_that_stutters(folder, monkeypatch):
    monkeypatch.setattr(stores, "_PAUSES", (0.0, 0.0))
    path = put(f"{folder}/a.tar", NESTED)
    cat_file, calls = MemoryFileSystem.cat_file, []

    def stutter(self, *args, **options):
        calls.append(1)
        if len(calls) % 5 == 0:
            raise ConnectionResetError("connection reset")
        return cat_file(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", stutter)
    index = index_archive(path, progress=False, workers=1)
    assert indexed_members(index) == tarfile_members(NESTED)


def test_unknown_scheme():
    with pytest.raises(ArchiveError, match=r"cannot be used here: .*Install the fsspec"):
        index_archive("nosuch://bucket/a.tar", progress=False)


class TestS3:
    """A real HTTP server that speaks S3, on this machine."""

    @pytest.fixture
    def fs(self, store, monkeypatch):
        for name, value in store.environment().items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        fs = fsspec.filesystem("s3")
        if not fs.exists("bucket"):
            fs.mkdir("bucket")
        yield fs
        s3fs.S3FileSystem.clear_instance_cache()

    def test_index_and_members(self, fs, tmp_path):
        fs.pipe_file("bucket/train.tar", NESTED)
        path = epath.Path("s3://bucket/train.tar")
        index = index_archive(path, cache_dir=tmp_path / "cache", progress=False, workers=8)
        assert index.files[0].path == "s3://bucket/train.tar"
        assert indexed_members(index) == tarfile_members(NESTED)
        again = index_archive(path, cache_dir=tmp_path / "cache", progress=False)
        assert again.files == index.files
        fs.pipe_file("bucket/train.tar", NESTED[:20_000] + b"x" + NESTED[20_001:])
        assert index_archive(path, progress=False).files != index.files

    def test_cache_in_the_bucket(self, fs):
        fs.pipe_file("bucket/v2.tar.gz", gzip.compress(FLAT, 1))
        index = index_archive("s3://bucket/v2.tar.gz", cache_dir="s3://bucket/c", progress=False)
        assert indexed_members(index) == tarfile_members(FLAT)
        assert len(fs.ls("bucket/c")) == 2

    def test_tensorflow_is_not_imported(self, fs):
        fs.pipe_file("bucket/small.tar", pack(ENTRIES[:3]))
        script = """
            import sys
            from etils import epath
            from imagenet_family.copies import ArchiveReader, index_archive
            index = index_archive(epath.Path("s3://bucket/small.tar"), progress=False)
            with ArchiveReader(index.files) as reader:
                print(len(reader.read(0, index.offsets[1], index.sizes[1], index.checks[1])))
            print("tensorflow" in sys.modules)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout.split() == ["20037", "False"], done.stderr

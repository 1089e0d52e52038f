"""The saved index: used when it may be, made again when it may not."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from archive_cases import pack
from fuzz_archives import indexed_members, tarfile_members

from imagenet_family.copies import index_archive
from imagenet_family.copies.tar import headers, parallel
from imagenet_family.storage import arrays

ENTRIES = [(f"d{i % 3}/n{i}.JPEG", os.urandom(100 + i)) for i in range(60)]


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "in" / "val.tar"
    path.parent.mkdir()
    path.write_bytes(pack([(f"{name}.tar", pack(ENTRIES)) for name in ("a", "b")]))
    return path


@pytest.fixture
def walks(monkeypatch):
    """Counts the walks over archives."""
    made = []
    walk = parallel.walk_archive
    monkeypatch.setattr(parallel, "walk_archive", lambda *args: made.append(1) or walk(*args))
    return made


def index(path: Path):
    return index_archive(path, cache_dir=path.parent.parent / "cache", progress=False)


def saved(path: Path) -> Path:
    (found,) = (path.parent.parent / "cache").iterdir()
    return found


def test_second_time_nothing_is_walked(archive, walks):
    first, second = index(archive), index(archive)
    assert len(walks) == 1
    assert first.files == second.files
    assert first.directories == second.directories
    for column in ("directory", "names", "offsets", "sizes", "checks"):
        left, right = getattr(first, column), getattr(second, column)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert indexed_members(second) == tarfile_members(archive.read_bytes())


def test_nothing_is_saved_beside_the_archive_or_without_a_folder(archive):
    index(archive)
    index_archive(archive, progress=False)
    assert list(archive.parent.iterdir()) == [archive]
    assert saved(archive).name.startswith("val.tar-")
    assert stat.S_ISREG(saved(archive).stat().st_mode)


def test_two_archives_of_one_name(archive, walks, tmp_path):
    other = tmp_path / "other" / "val.tar"
    other.parent.mkdir()
    other.write_bytes(pack([("x", b"1")]))
    assert len(index(archive)) == 120
    assert len(index(other)) == 1
    assert len(index(archive)) == 120
    assert len(walks) == 2


def test_relative_path_is_the_same_archive(archive, walks, monkeypatch):
    index(archive)
    monkeypatch.chdir(archive.parent)
    index_archive("val.tar", cache_dir="../cache", progress=False)
    assert len(walks) == 1


def test_changed_archive(archive, walks):
    index(archive)
    archive.write_bytes(pack(ENTRIES[:5]))
    assert len(index(archive)) == 5
    assert len(walks) == 2


def test_touched_archive(archive, walks):
    index(archive)
    os.utime(archive)
    index(archive)
    assert len(walks) == 2


def test_swapped_archive_of_same_size_and_time(archive, walks):
    status = archive.stat()
    index(archive)
    archive.write_bytes(pack([(f"{name}.tar", pack(ENTRIES[::-1])) for name in ("a", "b")]))
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert archive.stat().st_size == status.st_size
    assert indexed_members(index(archive)) == tarfile_members(archive.read_bytes())
    assert len(walks) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"x",
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"IFINDEX0" + data[8:],
        lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: os.urandom(len(data)),
        lambda data: data + bytes(10 << 20),
    ],
)
def test_damaged_index_is_made_again(archive, walks, damage):
    index(archive)
    saved(archive).write_bytes(damage(saved(archive).read_bytes()))
    assert indexed_members(index(archive)) == tarfile_members(archive.read_bytes())
    assert len(walks) == 2
    index(archive)
    assert len(walks) == 2, "the new one is good"


def test_index_of_another_archive_is_not_used(archive, walks, tmp_path):
    index(archive)
    copy = tmp_path / "copy" / "val.tar"
    copy.parent.mkdir()
    copy.write_bytes(pack([("x", b"1" * 70000)] * 2))
    shutil.copystat(archive, copy)
    target = saved(archive)
    index(copy)
    (other,) = [entry for entry in target.parent.iterdir() if entry != target]
    shutil.copyfile(target, other)
    assert len(index(copy)) == 2
    assert len(walks) == 3


def test_a_folder_where_the_index_should_be(archive, walks):
    index(archive)
    target = saved(archive)
    target.unlink()
    target.mkdir()
    assert len(index(archive)) == 120
    assert list(target.parent.iterdir()) == [target], "no temporary file is left"


def test_cache_that_cannot_be_written(archive, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    assert len(index(archive)) == 120


def test_forged_values_are_refused(archive, monkeypatch, walks):
    """What the digest lets through must still be an index that this archive could have."""
    from imagenet_family.copies import saved_index as saved_module

    good = index(archive)
    members = parallel.Members(
        good.directories, good.directory, good.names, good.offsets, good.sizes, good.checks
    )
    (file,) = good.files
    size = file.fingerprint.size

    def changed(column, row, value):
        array = getattr(members, column).copy()
        array[row] = value
        return {column: array}

    forged = [
        changed("offsets", 3, 0),
        changed("offsets", 3, -512),
        changed("offsets", 3, 513),
        changed("offsets", 3, 1 << 62),
        changed("sizes", 3, -1),
        changed("sizes", 3, size),
        changed("sizes", 3, (1 << 63) - 1),
        changed("directory", 3, -1),
        changed("directory", 3, len(good.directories)),
        changed("names", 3, b""),
        changed("names", 3, b"a/b"),
        changed("names", 3, b".."),
        changed("names", 3, b"a\0b"),
        changed("names", 3, b"\xff"),
        {"directories": ("../x", *good.directories[1:])},
        {"directories": ("/x", *good.directories[1:])},
        {"directories": ("a//x", *good.directories[1:])},
        changed("checks", 0, 0),
    ]
    for number, columns in enumerate(forged):
        bad = parallel.Members(**{**vars(members), **columns})
        saved_module.save(str(saved(archive).parent), file.path, file.fingerprint, bad)
        found = index(archive)
        assert len(walks) == number + 2, f"forgery {number} was believed"
        np.testing.assert_array_equal(found.offsets, good.offsets)
        np.testing.assert_array_equal(found.names, good.names)


def test_other_columns_than_those_of_an_index_are_refused(archive, walks):
    index(archive)
    note, columns = arrays.decode(saved(archive).read_bytes())
    others = [
        {name: column for name, column in columns.items() if name != "checks"},
        {name: column for name, column in columns.items() if name != "names"},
        {**columns, "more": columns["sizes"]},
        {**columns, "sizes": columns["sizes"].astype(np.int32)},
        {**columns, "sizes": columns["sizes"][1:]},
        {**columns, "names": columns["names"].astype("S70000")},
        {**columns, "directories": np.frombuffer(b"\xff\0", np.uint8)},
        {**columns, "directories": columns["directories"][:-2]},
    ]
    forged = [arrays.encode(note, other) for other in others]
    forged += [arrays.encode({**note, "path": "/x"}, columns), arrays.encode({}, columns)]
    for number, encoded in enumerate(forged):
        saved(archive).write_bytes(b"".join(encoded.pieces))
        assert indexed_members(index(archive)) == tarfile_members(archive.read_bytes())
        assert len(walks) == number + 2, f"forgery {number} was believed"


def test_check_is_of_the_header(archive):
    found = index(archive)
    data = archive.read_bytes()
    for offset, check in zip(found.offsets.tolist(), found.checks.tolist(), strict=True):
        assert headers.check_of(data[offset - 512 : offset]) == check

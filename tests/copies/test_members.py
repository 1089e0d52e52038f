"""Which members an index lists, with `tarfile` as the judge."""

import concurrent.futures
import gzip
import io
import itertools
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from archive_cases import END, header, member, pack, pax, record, stored
from fuzz_archives import indexed_members, tarfile_members
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagenet_family.copies import gunzip, index_archive
from imagenet_family.copies.tar import parallel, walk
from imagenet_family.errors import ArchiveError

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_counter = itertools.count()


def check(folder: Path, data: bytes, **options) -> None:
    path = folder / f"{next(_counter)}.tar"
    path.write_bytes(data)
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    try:
        expected = tarfile_members(plain)
    except KeyError:  # a link to nothing
        with pytest.raises(ArchiveError, match="expected a link to a file of the archive"):
            index_archive(path, progress=False, **options)
        return
    index = index_archive(path, progress=False, **options)
    found = indexed_members(index)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert found == expected
    assert index.source == str(path)
    assert len(set(index.directories)) == len(index.directories)
    assert sorted(set(index.directory.tolist())) == list(range(len(index.directories)))
    path.unlink()


_ALPHABET = st.characters(codec="utf-8", exclude_characters="/\0")
_COMPONENT = (
    st.text(_ALPHABET, min_size=1, max_size=12)
    | st.from_regex(r"[a-z]{60,85}", fullmatch=True)
    | st.sampled_from(["n01440764", "._x", ".hidden", "x~", "__MACOSX", "a b", "é" * 40, "."])
).filter(lambda text: text != "..")
_PATH = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["", "./", ".//"]),
    st.lists(_COMPONENT, min_size=1, max_size=4),
)


class _Tar(bytes):
    """A tar; what Hypothesis prints of a failing one is its members."""

    def __repr__(self) -> str:
        with tarfile.open(fileobj=io.BytesIO(self)) as tar:
            return f"<tar of {[(info.name, info.type, info.size) for info in tar]}>"


@st.composite
def _tars(draw, nested=True):
    out = io.BytesIO()
    tar_format = draw(st.sampled_from(FORMATS))
    with tarfile.open(fileobj=out, mode="w", format=tar_format, encoding="utf-8") as tar:
        info = tarfile.TarInfo("always.JPEG")
        tar.addfile(info)
        for path in draw(st.lists(_PATH, max_size=6)):
            info = tarfile.TarInfo(path)
            data = draw(st.binary(max_size=1200))
            kind = draw(st.sampled_from("fffffdlshn"))
            if kind == "d":
                info.type, data = tarfile.DIRTYPE, b""
            elif kind in "lsh":
                info.type = {"l": tarfile.LNKTYPE, "s": tarfile.SYMTYPE, "h": tarfile.FIFOTYPE}[
                    kind
                ]
                names = [*tar.getnames(), "nothing"]
                info.linkname, data = draw(st.sampled_from(names)), b""
            elif kind == "n" and nested:
                info.name += "x.tar"
                data = draw(_tars(nested=False))
            info.size = len(data)
            info.mtime = draw(st.sampled_from([0, 1234567890, 1e9 + 0.5]))
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:  # The format has no room for the name.
                assert tar_format == tarfile.USTAR_FORMAT
    return _Tar(out.getvalue())


@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(_tars())
def test_same_members_as_tarfile(tmp_path, data):
    check(tmp_path, data)


@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(_tars(), st.integers(1, 9))
def test_same_members_as_tarfile_in_gzip(tmp_path, data, level):
    check(tmp_path, gzip.compress(data, level), cache_dir=tmp_path / "cache")


def test_columns(tmp_path):
    path = tmp_path / "train.tar"
    inner = {c: pack([(f"{c}_{i}.JPEG", os.urandom(700 * i)) for i in range(4)]) for c in "ab"}
    path.write_bytes(pack([(f"./train/{c}.tar", data) for c, data in inner.items()]))
    index = index_archive(path, progress=False)
    assert len(index) == 8
    assert index.directories == ("train/a", "train/b")
    assert index.directory.dtype == np.int32
    assert index.names.dtype == "S8"
    assert index.offsets.dtype == index.sizes.dtype == np.int64
    assert index.checks.dtype == np.uint32
    assert index.sizes.tolist() == [0, 700, 1400, 2100] * 2
    assert index.files[0].path == index.source == str(path)
    assert [index.member_name(i) for i in (0, 5)] == ["train/a/a_0.JPEG", "train/b/b_1.JPEG"]


@pytest.mark.parametrize("tar_format", FORMATS)
@pytest.mark.parametrize("layout", ["{w}_{i}.JPEG", "{w}/{w}_{i}.JPEG", "./train/{w}/{w}_{i}.JPEG"])
def test_repacked_layouts(tmp_path, tar_format, layout):
    entries = [
        (layout.format(w=wnid, i=i), os.urandom(50 * i))
        for wnid in ("n01440764", "n15075141")
        for i in range(20)
    ]
    check(tmp_path, pack(entries, tar_format))


@pytest.mark.parametrize(
    "tar_format, width", [*itertools.product(FORMATS[1:], (99, 100, 101, 155, 200, 255))]
)
def test_long_names(tmp_path, tar_format, width):
    names = ["x" * width, "d" * 250 + "/" + "y" * width, "é" * (width // 2)]
    check(tmp_path, pack([(name, b"1") for name in names], tar_format))


def test_ustar_prefix_of_full_length(tmp_path):
    name = "d" * 155 + "/" + "n" * 100
    check(tmp_path, pack([(name, b"data")], tarfile.USTAR_FORMAT))


def test_base_256_size(tmp_path):
    size = b"\x80" + (600).to_bytes(11, "big")
    block = header(b"a.JPEG", at_124=size) + stored(b"x" * 600)
    check(tmp_path, block + END)


@pytest.mark.parametrize(
    "size", [b"%11o " % 600, b"%o\0" % 600, b"  %o  " % 600, b"%012o" % 600, b"%011o\0" % 600]
)
def test_other_ways_to_write_a_size(tmp_path, size):
    check(tmp_path, header(b"a", at_124=size.ljust(12, b"\0")) + stored(b"x" * 600) + END)


def test_pax_path_and_size(tmp_path):
    records = (
        record(b"path", "ü/ü.JPEG".encode()) + record(b"size", b"600") + record(b"atime", b"1")
    )
    data = pax(record(b"comment", b"x"), b"g") + pax(records)
    data += header(b"short", 0) + stored(b"x" * 600) + member(b"next.JPEG", b"1") + END
    check(tmp_path, data)


def test_old_tar_without_magic(tmp_path):
    old = {"kind": b"\0", "at_257": bytes(8)}
    data = header(b"d/", **old) + header(b"d/a", 3, **old) + stored(b"abc") + END
    check(tmp_path, data)


def test_signed_checksum(tmp_path):
    block = bytearray(header("é.JPEG".encode(), 3))
    signed = sum(byte - 256 * (byte > 127) for byte in block[:148] + block[156:]) + 8 * 0x20
    block[148:156] = b"%06o\0 " % signed
    check(tmp_path, bytes(block) + stored(b"abc") + END)


def test_duplicates_are_kept(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(pack([("a.JPEG", b"1"), ("a.JPEG", b"2")]))
    index = index_archive(path, progress=False)
    assert indexed_members(index) == [("a.JPEG", b"1"), ("a.JPEG", b"2")]


def test_only_one_level_is_opened(tmp_path):
    inner = pack([("deep.tar", pack([("x", b"1")])), ("y.JPEG", b"2")])
    data = pack([("a.tar", inner)])
    check(tmp_path, data)
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    index = index_archive(path, progress=False)
    assert [index.member_name(i) for i in range(2)] == ["a/deep.tar", "a/y.JPEG"]


def test_an_empty_nested_tar_has_no_members(tmp_path):
    check(tmp_path, pack([("a.tar", bytes(10240)), ("b.tar", pack([("x", b"1")]))]))


def test_one_zero_block_ends_an_archive(tmp_path):
    check(tmp_path, member(b"a", b"1") + bytes(512))


def test_gzip_of_several_streams_and_zeros(tmp_path):
    data = pack([("a", b"1"), ("b", os.urandom(3000))])
    packed = gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(700)
    check(tmp_path, packed, cache_dir=tmp_path / "cache")


def test_gzip_is_decompressed_once_and_old_copies_go(tmp_path):
    path, cache = tmp_path / "v2.tar.gz", tmp_path / "cache"
    path.write_bytes(gzip.compress(pack([("a", b"1")])))
    first = index_archive(path, cache_dir=cache, progress=False)
    (cache / (Path(first.files[0].path).name + ".left.tmp")).write_bytes(b"of a killed process")
    inode = Path(first.files[0].path).stat().st_ino
    assert index_archive(path, cache_dir=cache, progress=False).files[0].path == first.files[0].path
    assert Path(first.files[0].path).stat().st_ino == inode
    path.write_bytes(gzip.compress(pack([("a", b"1"), ("b", b"2")])))
    second = index_archive(path, cache_dir=cache, progress=False)
    assert len(second) == 2
    assert second.source == str(path) != second.files[0].path
    assert sorted(p.suffix for p in cache.iterdir()) == [".index", ".lock", ".tar"]


def test_gzip_is_decompressed_by_one_of_many(tmp_path, monkeypatch):
    path, cache = tmp_path / "v2.tar.gz", tmp_path / "cache"
    path.write_bytes(gzip.compress(pack([(str(i), os.urandom(5000)) for i in range(50)])))
    content, made = gunzip._content, []
    monkeypatch.setattr(gunzip, "_content", lambda *args: made.append(1) or content(*args))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: index_archive(path, cache_dir=cache, progress=False), range(8))
        assert {(index.files[0].path, len(index)) for index in found} == {(index_path(cache), 50)}
    assert len(made) == 1


def index_path(cache: Path) -> str:
    (path,) = cache.glob("*.tar")
    return str(path)


@pytest.fixture
def many_segments(monkeypatch):
    """Makes archives of a few hundred kilobytes count as large and slow."""
    monkeypatch.setattr(parallel, "_LOCAL_PROBE", 4096)
    monkeypatch.setattr(parallel, "_MIN_SEGMENT", 8192)
    monkeypatch.setattr(parallel, "_SLOW_SECONDS_PER_HEADER", 0.0)
    used = []
    inner = parallel._ArchiveWalk._segment

    def segment(*args):
        found = inner(*args)
        used.append(found)
        return found

    monkeypatch.setattr(parallel._ArchiveWalk, "_segment", segment)
    return used


@pytest.mark.parametrize("tar_format", FORMATS)
def test_segments_of_a_flat_archive(tmp_path, many_segments, tar_format):
    long = "" if tar_format == tarfile.USTAR_FORMAT else "é" * 60
    entries = [(f"t/{long}{i}.JPEG", os.urandom(37 * i % 4000)) for i in range(300)]
    check(tmp_path, pack(entries, tar_format), workers=8)
    assert sum(found is not None for found in many_segments) > 4


def test_segments_are_not_fooled_by_headers_in_data(tmp_path, many_segments):
    hidden = pack([(f"false{i}.JPEG", b"1" * 600) for i in range(20)])
    entries = [(f"{i}.bin", hidden if i % 3 else b"2" * 5000) for i in range(60)]
    check(tmp_path, pack(entries), workers=8)
    assert any(found is not None for found in many_segments)


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_threads_keep_the_order(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(parallel, "_SLOW_SECONDS_PER_HEADER", 0.0)
    inner = [(f"n{c:03}.tar", pack([(f"{c}_{i}", b"x") for i in range(c % 7)])) for c in range(90)]
    check(tmp_path, pack(inner), workers=workers)


def test_more_members_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(walk, "_BATCH", 7)
    entries = [(("d/" if i % 5 == 0 else "") + "x" * (i % 110) + str(i), b"1") for i in range(100)]
    check(tmp_path, pack(entries))

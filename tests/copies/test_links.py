"""Entries of an archive that are no files: links are what they name, nothing is lost silently."""

import io
import os
import tarfile

import pytest
from archive_cases import END, header, member, pack, pax, record
from fuzz_archives import indexed_members, tarfile_members

from imagenet_family.copies import index_archive
from imagenet_family.errors import ArchiveError

HARD, SYMBOLIC, FIFO, DEVICE = tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE
A, B = ("a.JPEG", FILE, b"data of a"), ("d/b.JPEG", FILE, b"data of b")
LONG = f"{'f' * 120}/{'n' * 90}.JPEG"


def tar_of(*entries, tar_format=tarfile.GNU_FORMAT):
    """Gives a tar of (name, type, data or target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == FILE:
                info.size = len(content)
            else:
                info.linkname = content
            tar.addfile(info, io.BytesIO(content if kind == FILE else b""))
    return out.getvalue()


FOLLOWED = {
    "hard": [A, ("x.JPEG", HARD, "a.JPEG")],
    "hard, from below": [B, ("x.JPEG", HARD, "d/b.JPEG")],
    "hard, to above": [A, ("d/x.JPEG", HARD, "a.JPEG")],
    "hard, written in other ways": [("./a.JPEG", FILE, b"1"), ("x.JPEG", HARD, ".//a.JPEG")],
    "hard to hard": [A, ("x.JPEG", HARD, "a.JPEG"), ("y.JPEG", HARD, "x.JPEG")],
    "hard to the one before it": [A, ("x.JPEG", HARD, "a.JPEG"), ("a.JPEG", FILE, b"later")],
    "symbolic": [A, ("x.JPEG", SYMBOLIC, "a.JPEG")],
    "symbolic in its folder": [B, ("d/x.JPEG", SYMBOLIC, "b.JPEG")],
    "symbolic to above": [A, ("d/e/x.JPEG", SYMBOLIC, "../../a.JPEG")],
    "symbolic to below": [B, ("x.JPEG", SYMBOLIC, "./d/../d/b.JPEG")],
    "symbolic to what follows": [("x.JPEG", SYMBOLIC, "a.JPEG"), A],
    "symbolic to symbolic": [("x.JPEG", SYMBOLIC, "y.JPEG"), ("y.JPEG", SYMBOLIC, "a.JPEG"), A],
    "symbolic to hard": [A, ("x.JPEG", HARD, "a.JPEG"), ("y.JPEG", SYMBOLIC, "x.JPEG")],
    "hard to symbolic": [A, ("x.JPEG", SYMBOLIC, "a.JPEG"), ("y.JPEG", HARD, "x.JPEG")],
    "long names": [(LONG, FILE, b"3"), (f"x{LONG}", HARD, LONG), ("y.JPEG", SYMBOLIC, LONG)],
    "hidden": [
        A,
        (".x.JPEG", HARD, "a.JPEG"),
        ("._a.JPEG", SYMBOLIC, "nothing"),
        ("d", FOLDER, ""),
    ],
}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("case", FOLLOWED)
def test_a_link_is_the_file_that_it_names(case, tar_format, tmp_path):
    path = tmp_path / "x.tar"
    data = tar_of(*FOLLOWED[case], tar_format=tar_format)
    path.write_bytes(data)
    found = indexed_members(index_archive(path, progress=False))
    assert found == tarfile_members(data)
    assert len(found) == sum(
        (kind != FOLDER and not name.startswith(".")) or name.startswith("./")
        for name, kind, _ in FOLLOWED[case]
    )


def test_links_in_a_tar_inside_the_archive_are_to_its_own_files(tmp_path):
    inner = tar_of(A, ("x.JPEG", HARD, "a.JPEG"), ("y.JPEG", SYMBOLIC, "x.JPEG"))
    path = tmp_path / "x.tar"
    path.write_bytes(pack([("a.JPEG", b"outside"), ("n1.tar", inner), ("n2.tar", inner)]))
    assert indexed_members(index_archive(path, progress=False)) == [
        ("a.JPEG", b"outside"),
        *((f"{n}/{name}.JPEG", b"data of a") for n in ("n1", "n2") for name in "axy"),
    ]


NOWHERE = {
    "nothing": [A, ("x.JPEG", HARD, "b.JPEG")],
    "hard to what follows": [("x.JPEG", HARD, "a.JPEG"), A],
    "symbolic to nothing": [A, ("x.JPEG", SYMBOLIC, "b.JPEG")],
    "itself": [A, ("x.JPEG", SYMBOLIC, "x.JPEG")],
    "a ring": [A, ("x.JPEG", SYMBOLIC, "y.JPEG"), ("y.JPEG", SYMBOLIC, "x.JPEG")],
    "a folder": [B, ("d", FOLDER, ""), ("x.JPEG", SYMBOLIC, "d")],
    "a hidden file": [A, (".b", FILE, b"2"), ("x.JPEG", SYMBOLIC, ".b")],
    "outside": [A, ("x.JPEG", SYMBOLIC, "../a.JPEG")],
    "outside, hard": [A, ("x.JPEG", HARD, "../a.JPEG")],
    "elsewhere": [A, ("x.JPEG", SYMBOLIC, "/data/a.JPEG")],
    "elsewhere, hard": [A, ("x.JPEG", HARD, "/a.JPEG")],
    "no name": [A, ("x.JPEG", SYMBOLIC, "")],
}


@pytest.mark.parametrize("case", NOWHERE)
def test_a_link_to_anything_else_is_an_error_that_names_both(case, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of(*NOWHERE[case]))
    (link,) = [e for e in NOWHERE[case] if e[0] == "x.JPEG"]
    with pytest.raises(
        ArchiveError, match=r"x.tar: at offset \d+ in 'x.JPEG': expected a link"
    ) as e:
        index_archive(path, progress=False)
    assert repr(link[2]) in str(e.value) and "--dereference" in str(e.value)


def test_many_links_in_an_archive_of_many_segments(tmp_path, monkeypatch):
    """As packed from a folder in which `rdfind` has linked what is equal."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(150):
            (tmp_path / name / f"{name}{i}.JPEG").write_bytes(b"%d" % (i % 130) * 700)
    for i in range(20):
        (tmp_path / "b" / f"b{i}.JPEG").unlink()
        os.link(tmp_path / "a" / f"a{i}.JPEG", tmp_path / "b" / f"b{i}.JPEG")
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "a", "a")
        tar.add(tmp_path / "b", "b")
    with tarfile.open(path) as tar:
        assert sum(info.islnk() for info in tar) == 20
    from imagenet_family.copies.tar import parallel

    monkeypatch.setattr(parallel, "_LOCAL_PROBE", 4096)
    monkeypatch.setattr(parallel, "_MIN_SEGMENT", 8192)
    monkeypatch.setattr(parallel, "_SLOW_SECONDS_PER_HEADER", 0)
    found = indexed_members(index_archive(path, progress=False, workers=3))
    assert len(found) == 300 and found == tarfile_members(path.read_bytes())


def test_what_is_left_out_is_counted_and_said(tmp_path, caplog):
    path = tmp_path / "x.tar"
    hidden = [(f"d/._{i}.JPEG", FILE, b"") for i in range(7)]
    inner = tar_of(A, *hidden, (".tar", FILE, b"x"), ("pipe", FIFO, ""), ("null", DEVICE, ""))
    path.write_bytes(pack([("n1.tar", inner), ("x~", b""), ("._n1.tar", b"x")]))
    cache = tmp_path / "cache"
    assert len(index_archive(path, cache_dir=cache, progress=False)) == 1
    (said,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert said.startswith(f"{path}: left out are ")
    assert "10 hidden files and back-ups (such as " in said
    assert "2 devices and pipes (such as pipe)" in said
    caplog.clear()
    assert len(index_archive(path, cache_dir=cache, progress=False)) == 1  # the saved index
    path.write_bytes(tar_of(A, ("d", FOLDER, "")))
    index_archive(path, progress=False)
    assert not caplog.records


def test_what_extension_headers_say_of_links(tmp_path):
    """A long target in a pax record or a GNU header, and two that differ."""
    path = tmp_path / "x.tar"
    long_link = header(b"././@LongLink", 7, b"K") + b"a.JPEG\0".ljust(512, b"\0")
    for before in (pax(record(b"linkpath", b"a.JPEG")), long_link):
        link = header(b"x.JPEG", 0, b"1", at_157=b"other")
        path.write_bytes(member(b"a.JPEG", b"1") + before + link + END)
        assert indexed_members(index_archive(path, progress=False)) == [
            ("a.JPEG", b"1"),
            ("x.JPEG", b"1"),
        ]
    both = pax(record(b"linkpath", b"b.JPEG")) + long_link
    path.write_bytes(member(b"a.JPEG", b"1") + both + header(b"x.JPEG", 0, b"1") + END)
    with pytest.raises(ArchiveError, match="one link for a member"):
        index_archive(path, progress=False)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"BZh91AY&SY", "a bzip2 file. Unpack it with bunzip2"),
        (b"\xfd7zXZ\0\0\4", "an xz file. Unpack it with unxz"),
        (b"\x28\xb5\x2f\xfd\4", "a Zstandard file. Unpack it with unzstd"),
        (b"PK\3\4\x14", "a zip file. Unpack it with unzip"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
        (b"Rar!\x1a\7", "a RAR file"),
        (b"PAR1\x15", "a Parquet file"),
        (b"<!DOCTYPE html>", "a web page. Log in"),
        (b"<html><body>", "a web page. Log in"),
    ],
)
def test_other_files_under_the_name_of_a_tar_are_named(start, said, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(start.ljust(20_000, b"z"))
    with pytest.raises(ArchiveError, match="expected a tar archive, found ") as error:
        index_archive(path, progress=False)
    assert said in str(error.value) and "etch it again" not in str(error.value).split("found")[0]

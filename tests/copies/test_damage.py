"""Archives that are refused: each by name, with a message that says where and why."""

import errno
import gzip
import os
import re
import tarfile
from pathlib import Path

import pytest
from archive_cases import BLOCK, END, header, member, pack, pax, record, stored

from imagenet_family.copies import gunzip, index_archive
from imagenet_family.errors import ArchiveError, BuildError, ImagenetFamilyError, MissingFileError
from imagenet_family.storage import reads

SOUND = member(b"a.JPEG", b"1" * 1000) + member(b"b.JPEG", b"2" * 300) + END
HTML = b"<!DOCTYPE html><html><body>Sign in to download</body></html>\n" * 40
INNER = member(b"n/x.JPEG", b"3" * 700) + END


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]


def sparse_gnu() -> bytes:
    return header(b"a.JPEG", 512, b"S", at_257=b"ustar  \0") + stored(b"x" * 512) + END


CASES = {
    # name: (bytes of the archive, what the message must say)
    "empty file": (b"", "empty file"),
    "only zeros": (bytes(10240), "without a single file"),
    "only a directory": (header(b"d/", kind=b"5") + END, "without a single file"),
    "html page": (HTML, "at offset 0: expected a tar archive, found a web page. Log in"),
    "short text": (b"not found", "at offset 0: expected a header or the end marker .*at 9"),
    "cut in a header": (SOUND[: 1536 + 100], "at offset 1536: .*cut short"),
    "cut in the first header": (SOUND[:200], "at offset 0: .*cut short"),
    "cut in data": (SOUND[:1000], "at offset 0 in 'a.JPEG': expected 1000 bytes.*at 1000"),
    "cut in padding": (SOUND[:1520], "at offset 1536: .*cut short"),
    "cut between members": (SOUND[:1536], "at offset 1536: .*end marker.*cut short"),
    "cut before the end marker": (SOUND[:-1024], "at offset 2560: .*end marker.*cut short"),
    "flipped bit in a name": (flipped(SOUND, 1540), "at offset 1536: .*checksum is"),
    "flipped bit in a size": (flipped(SOUND, 131), "at offset 0: .*checksum is"),
    "flipped bit in a checksum": (flipped(SOUND, 150), "at offset 0: .*checksum is"),
    "letters in a size": (
        header(b"a", at_124=b"0000000x000\0") + END,
        "at offset 0: expected a number in octal digits",
    ),
    "negative size": (header(b"a", at_124=b"\xff" * 12) + END, "at offset 0: .*octal digits"),
    "signed size": (header(b"a", at_124=b"-0000000001\0") + END, "at offset 0: .*octal digits"),
    "size with an underscore": (header(b"a", at_124=b"0000000_001\0") + END, "octal digits"),
    "huge size": (header(b"a", at_124=b"77777777777\0") + END, "expected 8589934591 bytes"),
    "huge base-256 size": (
        header(b"a", at_124=b"\x80" + b"\xff" * 11) + END,
        "at offset 0 in 'a': expected 309485009821345068724781055 bytes",
    ),
    "letters in the owner": (header(b"a", at_108=b"wwwwwww\0") + END, "octal digits"),
    "parent directory": (member(b"a/../../x", b"1") + END, r"without '\.\.', found b'a/"),
    "parent directory in a directory": (
        header(b"../d/", kind=b"5") + member(b"a", b"") + END,
        r"\.\.",
    ),
    "absolute path": (member(b"/etc/passwd", b"1") + END, "expected a relative path"),
    "absolute link": (header(b"/x", kind=b"2") + member(b"a", b"") + END, "a relative path"),
    "name not UTF-8": (member(b"\xff\xfe.JPEG", b"1") + END, "a path in UTF-8"),
    "no name": (member(b"", b"1") + END, "not empty"),
    "NUL in a pax path": (
        pax(record(b"path", b"a\0b")) + member(b"a", b"1") + END,
        "a path without NUL bytes",
    ),
    "empty pax path": (pax(record(b"path", b"")) + member(b"a", b"1") + END, "not empty"),
    "long base name": (
        pax(record(b"path", b"n" * 256)) + member(b"a", b"1") + END,
        "each name at most 255, found 256 bytes",
    ),
    "long path": (
        pax(record(b"path", b"d/" * 2100 + b"n")) + member(b"a", b"1") + END,
        "a path of at most 4096 bytes",
    ),
    "sparse member of GNU tar": (sparse_gnu(), "found a sparse member.*without --sparse"),
    "sparse member by pax 1.0": (
        pax(record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0"))
        + member(b"a", b"1")
        + END,
        "found a sparse member",
    ),
    "sparse member by pax 0.1": (
        pax(record(b"GNU.sparse.map", b"0,5")) + member(b"a", b"1") + END,
        "found a sparse member",
    ),
    "malformed pax records": (pax(b"27 path") + member(b"a", b"1") + END, "expected pax records"),
    "pax records without a length": (pax(b"path=x\n") + member(b"a", b"") + END, "pax records"),
    "pax records longer than they are": (pax(b"99 path=x\n") + member(b"a", b"") + END, "pax rec"),
    "pax size with a sign": (
        pax(record(b"size", b"-5")) + member(b"a", b"1") + END,
        "a pax size in decimal digits",
    ),
    "pax path for all members": (
        pax(record(b"path", b"x"), b"g") + member(b"a", b"1") + END,
        "the same one for all",
    ),
    "two paths for a member": (
        pax(record(b"path", b"x")) + pax(record(b"path", b"y")) + member(b"a", b"1") + END,
        "two that differ",
    ),
    "extension header without a member": (pax(record(b"path", b"x")) + END, "found zeros"),
    "huge extension header": (
        header(b"././@LongLink", 1 << 21, b"L") + bytes(1 << 21) + END,
        "an extension header of at most 1048576 bytes",
    ),
    "cut in an extension header": (
        (pax(record(b"path", b"x" * 900)) + member(b"a", b"1"))[:1000],
        "bytes of extension header, found the end",
    ),
    "unknown type of entry": (member(b"a", b"1", at_156=b"V") + END, "found an entry of type b'V'"),
    "part of a multi-volume archive": (member(b"a", b"1", at_156=b"M") + END, "of type b'M'"),
    "directory or file, by name": (
        pax(record(b"path", b"d/")) + header(b"d", 0, b"\0") + END,
        "a file or a directory, found both",
    ),
    "times where the prefix is": (
        header(b"a", at_257=b"ustar  \0", at_345=b"13672342342\0") + END,
        "an empty prefix field",
    ),
    "data after the end marker": (SOUND + b"garbage", "found more data behind it"),
    "two archives joined": (SOUND + SOUND, "at offset 2560: .*joined"),
    "hole in the middle": (
        SOUND[:1536] + bytes(3 << 20) + SOUND,
        "at offset 1536: .*found 314[0-9]* bytes after it.*hole",
    ),
    "rest missing but laid out": (SOUND[:1536] + bytes(2 << 20), "at offset 1536: .*hole"),
    "nested tar cut in data": (
        member(b"c.tar", INNER[:1000]) + END,
        r"at offset 512 in 'c/n/x.JPEG': expected 700 bytes.*the end of the tar c.tar in it",
    ),
    "nested tar cut before its end marker": (
        member(b"c.tar", INNER[:1536]) + END,
        "at offset 2048 in 'c': .*cut short",
    ),
    "nested tar of another size than its member": (
        header(b"c.tar", len(INNER) - 1024) + INNER + END,
        "at offset 2048 in 'c': .*end marker",
    ),
    "nested tar with a flipped bit": (
        member(b"c.tar", flipped(INNER, 3)) + END,
        "at offset 512 in 'c': .*checksum",
    ),
    "nested tar that is a page": (member(b"c.tar", HTML) + END, "a tar, as the member's name says"),
    "nested tar that is empty": (member(b"c.tar", b"") + END, "found an empty file"),
    "nested tar that is gzip": (member(b"c.tar", gzip.compress(HTML, 0)) + END, "a tar, as the"),
    "parent directory in a nested tar": (
        member(b"c.tar", member(b"../x", b"1") + END) + END,
        r"at offset 512 in 'c': expected a relative path",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(tmp_path, name):
    data, expected = CASES[name]
    path = tmp_path / "given.tar"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=expected) as caught:
        index_archive(path, cache_dir=tmp_path / "cache", progress=False)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(r"[Ff]etch|[Pp]ack", message), "says what to do"
    assert not (tmp_path / "cache").exists(), "nothing is saved"


@pytest.mark.parametrize("name", CASES)
def test_refused_in_gzip_too(tmp_path, name):
    path = tmp_path / "given.tar.gz"
    path.write_bytes(gzip.compress(CASES[name][0], 1))
    with pytest.raises(ArchiveError) as caught:
        index_archive(path, cache_dir=tmp_path / "cache", progress=False)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_first_damage_is_told(tmp_path):
    """A walk that a damaged size has sent astray reports the damage, not where it stranded."""
    data = flipped(member(b"a", b"1" * 600, at_124=b"00000001130\0"), 134)
    path = tmp_path / "a.tar"
    path.write_bytes(SOUND[:2560] + data + END)
    with pytest.raises(ArchiveError, match=r"at offset 2560: .*checksum"):
        index_archive(path, progress=False)


def test_no_such_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone.tar: .*found no file"):
        index_archive(tmp_path / "gone.tar", progress=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MissingFileError):
        index_archive(tmp_path / "file" / "gone.tar", progress=False)


def test_directory_and_special_file(tmp_path):
    with pytest.raises(ArchiveError, match="found a directory"):
        index_archive(tmp_path, progress=False)
    os.mkfifo(tmp_path / "fifo.tar")
    with pytest.raises(ArchiveError, match="special file"):
        index_archive(tmp_path / "fifo.tar", progress=False)


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(SOUND)
    path.chmod(0)
    if os.access(path, os.R_OK):  # A superuser may read everything.
        refuse = PermissionError(errno.EACCES, "Permission denied", str(path))
        monkeypatch.setattr(reads.os, "open", lambda *_: (_ for _ in ()).throw(refuse))
    with pytest.raises(ArchiveError, match=r"no permission. Change the permissions"):
        index_archive(path, progress=False)


def test_unreadable_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(SOUND)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reads.os, "pread", fail)
    with pytest.raises(ArchiveError, match=r"offset 0 cannot be read: .*EIO"):
        index_archive(path, progress=False)


@pytest.mark.parametrize("change", ["append", "shorten", "touch"])
def test_archive_that_changes_while_it_is_indexed(tmp_path, monkeypatch, change):
    path = tmp_path / "a.tar"
    path.write_bytes(pack([(str(i), b"x" * 600) for i in range(50)]))
    read, count = reads.os.pread, 0

    def pread(fd, length, offset):
        nonlocal count
        count += 1
        if count == 20:
            with path.open("r+b") as file:
                if change == "append":
                    file.seek(0, os.SEEK_END)
                    file.write(bytes(512))
                elif change == "shorten":
                    file.truncate(22 * 1024)
                else:
                    os.utime(path)
        return read(fd, length, offset)

    monkeypatch.setattr(reads.os, "pread", pread)
    with pytest.raises(ArchiveError, match=r"changed while|became shorter"):
        index_archive(path, progress=False)


class TestGzip:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        path = tmp_path / "v2.tar.gz"
        path.write_bytes(gzip.compress(pack([(str(i), os.urandom(5000)) for i in range(20)])))
        return path

    def cache(self, path: Path) -> list[str]:
        return [entry.suffix for entry in (path.parent / "cache").iterdir()]

    def check_refused(self, path: Path, data: bytes, expected: str) -> None:
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match=expected) as caught:
            index_archive(path, cache_dir=path.parent / "cache", progress=False)
        assert str(path) in str(caught.value)
        assert self.cache(path) == [".lock"], "no part of it is left"

    def test_no_cache_folder(self, path):
        with pytest.raises(ArchiveError, match=r"found gzip\. Give a cache_dir"):
            index_archive(path, progress=False)

    def test_cut(self, path):
        data = path.read_bytes()
        for length in (2, 15, 50_000, len(data) - 1):
            self.check_refused(path, data[:length], "it was cut short")

    def test_flipped_bit(self, path):
        data = path.read_bytes()
        self.check_refused(path, flipped(data, 3), "found damage")
        self.check_refused(path, flipped(data, len(data) - 6), "found damage")

    def test_garbage_behind(self, path):
        self.check_refused(path, path.read_bytes() + b"garbage", "found damage")

    def test_not_a_tar(self, path):
        path.write_bytes(gzip.compress(HTML))
        with pytest.raises(ArchiveError, match="gz: at offset 0: expected a tar archive"):
            index_archive(path, cache_dir=path.parent / "cache", progress=False)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_disk_full(self, path, monkeypatch, number):
        content = gunzip._content

        def until_full(*args):
            for piece in content(*args):
                yield piece[:1000]
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(gunzip, "_content", until_full)
        with pytest.raises(BuildError, match=r"no space left\. Make space"):
            index_archive(path, cache_dir=path.parent / "cache", progress=False)
        assert self.cache(path) == [".lock"]

    def test_cache_folder_that_cannot_be_made(self, path):
        (path.parent / "cache").write_bytes(b"a file")
        with pytest.raises(BuildError, match="cannot be written there"):
            index_archive(path, cache_dir=path.parent / "cache", progress=False)

    def test_archive_that_changes_meanwhile(self, path, monkeypatch):
        content = gunzip._content

        def touched(*args):
            yield from content(*args)
            os.utime(path)

        monkeypatch.setattr(gunzip, "_content", touched)
        with pytest.raises(ArchiveError, match="changed while it was decompressed"):
            index_archive(path, cache_dir=path.parent / "cache", progress=False)
        assert self.cache(path) == [".lock"]


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_cut_is_noticed(tmp_path, tar_format):
    """Wherever an archive is cut, it is refused, or only zeros of its end are missing."""
    data = pack([("x" * 120, b"1" * 700), ("t.tar", INNER)], tar_format)
    end = len(data.rstrip(b"\0"))
    path = tmp_path / "cut.tar"
    for length in range(0, len(data), 128):
        path.write_bytes(data[:length])
        try:
            index = index_archive(path, progress=False)
        except ImagenetFamilyError:
            continue
        assert length >= end + BLOCK
        assert len(index) == 2

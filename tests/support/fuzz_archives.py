"""A fuzzer for archives, gzip archives and saved indexes, with `tarfile` as the judge.

Each case damages a small sound input and indexes it. What comes out must be the members that
`tarfile` finds, or an `ImagenetFamilyError`; anything else is a bug and stops the run, and so are
a file that appears anywhere else and memory that grows.

    python tests/support/fuzz_archives.py --seed 0 --count 100000
"""

import argparse
import gzip
import hashlib
import io
import os
import random
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

from memory_limit import bounded_memory

from imagenet_family.copies import ArchiveIndex, ArchiveReader, index_archive
from imagenet_family.errors import ImagenetFamilyError

BLOCK = 512
_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_MAX_SECONDS = 5.0
Member = tuple[str, bytes]


def tarfile_members(data: bytes, nested: bool = False) -> list[Member]:
    """Returns (path, data) of what `tarfile` finds, by the rules for which members are wanted."""
    members: list[Member] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            path = os.path.normpath(info.name)
            name = path.rpartition("/")[2]
            if path.startswith(".") or name.startswith(".") or name.endswith("~"):
                continue
            if "__MACOSX" in path.split("/")[:-1] or info.isdir() or info.isdev():
                continue
            file = tar.extractfile(info)  # a KeyError if it is a link to nothing
            if file is None:
                raise KeyError(f"{info.name} is a link to a folder")
            content = file.read()
            if not nested and info.isreg() and info.name.endswith(".tar"):
                stem = path.removesuffix(".tar")
                members += [
                    (f"{stem}/{inner}", inside) for inner, inside in tarfile_members(content, True)
                ]
            else:
                members.append((path, content))
    return members


def indexed_members(index: ArchiveIndex) -> list[Member]:
    """Returns (path, data) of each member of an index, read through a reader."""
    with ArchiveReader(index.files) as reader:
        return [
            (
                index.member_name(i),
                reader.read(index.file[i], index.offsets[i], index.sizes[i], index.checks[i]),
            )
            for i in range(len(index))
        ]


def make_tar(rng: random.Random, nested: bool = True) -> bytes:
    """Returns a small sound archive with some of everything that archives hold."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=rng.choice(_FORMATS)) as tar:
        for number in range(rng.randrange(1, 7)):
            prefix = rng.choice(("", "", "./", "train/", "a/b//"))
            long = "x" * rng.choice((0, 0, 0, 85, 90))
            info = tarfile.TarInfo(f"{prefix}{long}n{number}.JPEG")
            info.mtime = rng.choice((0, 1300000000))
            data = rng.randbytes(rng.choice((0, 1, 511, 512, 513, 2000)))
            kind = rng.randrange(10)
            if kind == 0:
                info.type, data = tarfile.DIRTYPE, b""
            elif kind == 1:
                info.type, data = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), b""
                files = [
                    n
                    for n in tar.getnames()
                    if n.endswith(".JPEG") and "._" not in n and len(n) < 100
                ]
                info.linkname = rng.choice(("y" * 100, *files))
            elif kind == 2:
                info.name = f"{prefix}._n{number}.JPEG"
            elif kind <= 4 and nested:
                info.name, data = f"{prefix}n{number}.tar", make_tar(rng, nested=False)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def fix_checksum(data: bytearray, position: int) -> None:
    """Makes the checksum of the header at `position` right again."""
    data[position + 148 : position + 156] = b" " * 8
    total = sum(data[position : position + BLOCK])
    data[position + 148 : position + 156] = b"%06o\0 " % total


def _header_positions(data: bytes) -> list[int]:
    return [
        at for at in range(0, len(data) - BLOCK + 1, BLOCK) if data[at + 257 : at + 262] == b"ustar"
    ] or [0]


def damage(rng: random.Random, sound: bytes) -> bytes:
    """Returns a copy of an archive with one to three things done to it."""
    data = bytearray(sound)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(data) < BLOCK:
            break
        at = rng.choice(_header_positions(data))
        block = rng.randrange(0, len(data) // BLOCK) * BLOCK
        action = rng.randrange(11)
        if action == 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif action == 1:
            del data[rng.randrange(len(data)) :]
        elif action == 2:
            del data[block:]
        elif action == 3:
            data[at + rng.randrange(BLOCK)] = rng.randrange(256)
        elif action == 4:
            data[at + 156] = rng.choice(b"01234567LKSxXgAVMD\0\xff")
            fix_checksum(data, at)
        elif action == 5:
            field = rng.choice(
                (
                    b"%011o\0" % rng.randrange(4000),
                    b"\x80" + rng.randrange(1 << 20).to_bytes(11, "big"),
                    b"\xff" * 12,
                    b"77777777777\0",
                    b"\x80" + b"\xff" * 11,
                    b"      %05o " % rng.randrange(4000),
                    b"-0000000001\0",
                    b"0_0\0" + bytes(8),
                    bytes(12),
                )
            )
            data[at + 124 : at + 136] = field
            fix_checksum(data, at)
        elif action == 6:
            name = rng.choice(
                (b"../x", b"/etc/x", b"a/../b", b"\xff\xfe", b"", b"a\0b", b"x.tar", b".", b"d/")
            )
            data[at : at + 100] = name.ljust(100, b"\0")
            fix_checksum(data, at)
        elif action == 7:
            data[at + rng.randrange(500)] = rng.randrange(256)
            fix_checksum(data, at)
        elif action == 8:
            data[block : block + BLOCK] = bytes(BLOCK)
        elif action == 9:
            data[block:block] = data[at : at + BLOCK]
        else:
            start = rng.randrange(len(data))
            data[start : start + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
    return bytes(data)


def check_archive(folder: Path, data: bytes, compressed: bool = False) -> bool:
    """Indexes an archive; says whether that gave members (else an `ImagenetFamilyError`).

    Raises:
        AssertionError: The members are not those that `tarfile` finds, or it took too long.
        Exception: Something else than an `ImagenetFamilyError` was raised.
    """
    path = folder / "fuzzed.tar"
    path.write_bytes(data)
    began = time.perf_counter()
    try:
        index = index_archive(
            path, cache_dir=folder / "cache" if compressed else None, progress=False, workers=2
        )
        found = indexed_members(index)
    except ImagenetFamilyError as error:
        assert str(path) in str(error), f"the message names no archive: {error}"
        return False
    finally:
        assert time.perf_counter() - began < _MAX_SECONDS
        shutil.rmtree(folder / "cache", ignore_errors=True)
    assert found == tarfile_members(gzip.decompress(data) if compressed else data)
    return True


def check_saved_index(folder: Path, rng: random.Random, sound: bytes) -> bool:
    """Damages the saved index of a sound archive; says whether it is good for something.

    Raises:
        AssertionError: The members are not those of the archive.
    """
    path, cache = folder / "sound.tar", folder / "saved"
    path.write_bytes(sound)
    try:
        index_archive(path, cache_dir=cache, progress=False)
        (saved,) = cache.glob("*.index")
        data = bytearray(saved.read_bytes())
        forged = rng.random() < 0.5
        for _ in range(rng.choice((1, 1, 4))):
            action = rng.randrange(4)
            if action == 0 and len(data) > 16:
                del data[rng.randrange(len(data)) :]
            elif action == 1:
                data += rng.randbytes(rng.randrange(40))
            elif data:
                start = rng.randrange(min(len(data), 400) if action == 2 else len(data))
                data[start : start + 8] = rng.choice(
                    (rng.randbytes(8), b"\xff" * 8, bytes(8), rng.randbytes(1))
                )
        if forged:
            # As if its writer had meant it: only the checks of the values are left.
            data[-16:] = hashlib.blake2b(data[:-16], digest_size=16).digest()
        saved.write_bytes(data)
        index = index_archive(path, cache_dir=cache, progress=False)
        try:
            found = indexed_members(index)
        except ImagenetFamilyError:
            assert forged
            return False
        expected = tarfile_members(sound)
        # With the digest forged, a size or a name may be another one; no read can be outside.
        assert forged or found == expected
        return True
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def run(seed: int, count: int) -> dict[str, int]:
    """Runs `count` cases; returns how many were refused and how many gave members.

    Raises:
        AssertionError: A case went wrong; the message names its seed.
    """
    results = {"members": 0, "refused": 0}
    with (
        bounded_memory() as peak,
        tempfile.TemporaryDirectory(prefix="fuzz-archives-") as name,
    ):
        folder = Path(name)
        (folder / "work").mkdir()
        for case in range(seed, seed + count):
            rng = random.Random(case)
            try:
                good = _run_case(folder / "work", rng)
            except Exception as error:
                raise AssertionError(f"case {case}: {type(error).__name__}: {error}") from error
            results["members" if good else "refused"] += 1
        _check_files(folder)
    print(peak)
    return results


def _check_files(folder: Path) -> None:
    """Looks for files that a name such as `../x` has led out of where they belong."""
    assert [path.name for path in folder.iterdir()] == ["work"]
    left = {path.name for path in (folder / "work").iterdir()}
    assert left <= {"fuzzed.tar", "sound.tar"}, left


def _run_case(folder: Path, rng: random.Random) -> bool:
    kind = rng.random()
    sound = make_tar(rng)
    if kind < 0.7:
        return check_archive(folder, damage(rng, sound))
    if kind < 0.8:
        packed = bytearray(gzip.compress(damage(rng, sound), 1))
        if rng.random() < 0.7:
            packed[rng.randrange(2, len(packed))] ^= 1 << rng.randrange(8)
        return check_archive(folder, bytes(packed), compressed=True)
    try:
        tarfile_members(sound)[0]
    except (IndexError, KeyError):
        return False
    return check_saved_index(folder, rng, sound)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100_000)
    arguments = parser.parse_args()
    print(run(arguments.seed, arguments.count))

"""Reading members of an indexed copy, each at its place in one of the copy's files."""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from imagenet_family.copies.source_file import SourceFile
from imagenet_family.copies.tar import headers
from imagenet_family.errors import ArchiveError
from imagenet_family.storage.paths import is_local
from imagenet_family.storage.reads import File

# Members that are fetched at once when many are read. They lie all over the archive, so without
# this a disk would be idle while an image is written, and the other way round.
_READS_AHEAD = 16
# Files that are kept open: a system may allow a process no more than 256, and a process has a
# reader for each split.
_MOST_OPEN = 64
_ROWS_AT_ONCE = 1 << 12  # as Python's numbers, which take five times the memory of NumPy's

_Member = tuple[int, int, int, int, bytes]  # file, offset, size, check, name


class ArchiveReader:
    """Reads members at the places that an index gives.

    The header block before the data is read with it and compared, and a local file's size and
    time of change are looked at after every read, or after many: an archive that changed since it
    was indexed is an error, never the wrong bytes. Files are opened when they are first read, and
    a bounded number of them stays open. One reader serves all threads of a process. It can be
    pickled; the copy opens the files again.
    """

    def __init__(self, files: Sequence[SourceFile]) -> None:
        """Opens nothing yet.

        Args:
            files: `ArchiveIndex.files`.
        """
        self.files = tuple(files)
        # By which process, since connections do not survive a fork; and by number. There is no
        # lock, which a fork could leave locked: threads may open a file twice, and what is
        # dropped is closed when nobody reads from it any more.
        self._opened: tuple[int, dict[int, File]] = (os.getpid(), {})

    def read(self, file: int, offset: int, size: int, check: int, name: str | bytes = "") -> bytes:
        """Returns the data of one member.

        Args:
            file: Which file it is in (`ArchiveIndex.file`).
            offset: Where its data begins there (`ArchiveIndex.offsets`).
            size: Bytes of it (`ArchiveIndex.sizes`).
            check: What its header must be (`ArchiveIndex.checks`).
            name: What messages call it.

        Raises:
            MissingFileError: The file is gone.
            ArchiveError: The file changed since it was indexed, or cannot be read.
        """
        source_file, opened = self.files[file], self._open(int(file))
        data = _read(source_file, opened, int(offset), int(size), int(check), name)
        source_file.check_unchanged(opened)
        return data

    def check_unchanged(self, file: int) -> None:
        """Checks that a file is still the one that was indexed.

        Raises:
            MissingFileError: The file is gone.
            ArchiveError: The file changed since it was indexed.
        """
        self.files[file].check_unchanged(self._open(file))

    def read_all(
        self,
        file: NDArray[np.int32],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        checks: NDArray[np.uint32],
        names: NDArray[np.bytes_],
    ) -> Iterator[bytes]:
        """Gives the data of many members in turn, for less than `read` takes for each.

        Several are fetched at once. Whether the files are still those that were indexed is looked
        at once, at the end: what this gives only counts when it has ended without an error.

        Args:
            file: As for `read`, of each member.
            offsets: The same.
            sizes: The same.
            checks: The same.
            names: The same.

        Raises:
            MissingFileError: A file is gone.
            ArchiveError: A file changed since it was indexed, or cannot be read.
        """
        members = _rows((file, offsets, sizes, checks, names))
        if not all(is_local(source_file.path) for source_file in self.files):
            with ThreadPoolExecutor(_READS_AHEAD) as pool:
                try:
                    yield from _ahead(
                        members, lambda *m: pool.submit(lambda: self._begin(*m)()).result
                    )
                finally:
                    pool.shutdown(cancel_futures=True)
        else:
            yield from _ahead(members, self._begin)
        for number in np.unique(file).tolist():
            self.check_unchanged(number)

    def _begin(
        self, file: int, offset: int, size: int, check: int, name: bytes
    ) -> Callable[[], bytes]:
        """Announces one member; what it gives then reads it."""
        opened = self._open(file)
        opened.will_read(offset - headers.BLOCK, size + headers.BLOCK)
        return functools.partial(_read, self.files[file], opened, offset, size, check, name)

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        self._opened = (os.getpid(), {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return ArchiveReader, (self.files,)

    def _open(self, number: int) -> File:
        process, opened = self._opened
        if process != os.getpid():
            opened = {}
            self._opened = (os.getpid(), opened)
        file = opened.get(number)
        if file is None:
            file = self.files[number].open()
            file.expect_scattered_reads()
            file = opened.setdefault(number, file)
            for oldest in list(opened)[:-_MOST_OPEN]:
                opened.pop(oldest, None)
        return file


def _read(
    source_file: SourceFile, opened: File, offset: int, size: int, check: int, name: str | bytes
) -> bytes:
    end = source_file.fingerprint.size
    if offset < headers.BLOCK or size < 0 or offset + size > end:
        raise _error(source_file, name, offset, f"a member inside its {end} bytes", f"{size} bytes")
    header, data = opened.read_member(offset, size, headers.BLOCK)
    if len(data) != size:
        raise _error(source_file, name, offset, f"{size} bytes", f"{len(data)}")
    if headers.check_of(header) != check:
        expected = "the header that was indexed"
        raise _error(source_file, name, offset, expected, "another one before it")
    return data


def _error(
    source_file: SourceFile, name: str | bytes, offset: int, expected: str, found: str
) -> ArchiveError:
    name = name.decode() if isinstance(name, bytes) else name
    return ArchiveError(
        f"{source_file.source}: member {name!r} at offset {offset}: expected {expected}, found "
        f"{found}: the archive changed since it was indexed, or is damaged. Start again; if that "
        "does not help, see what `imagenet-family verify` says of it."
    )


def _ahead(
    members: Iterable[_Member], begin: Callable[..., Callable[[], bytes]]
) -> Iterator[bytes]:
    """Begins to read some members before the first of them is asked for, and so on."""
    begun: collections.deque[Callable[[], bytes]] = collections.deque()
    for member in members:
        begun.append(begin(*member))
        if len(begun) > _READS_AHEAD:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _rows(columns: Sequence[NDArray[Any]]) -> Iterator[_Member]:
    for start in range(0, len(columns[0]), _ROWS_AT_ONCE):
        part = [column[start : start + _ROWS_AT_ONCE].tolist() for column in columns]
        yield from zip(*part, strict=True)

"""Reading members of an indexed archive, each at its place."""

import collections
import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from imagenet_family.copies.tar import headers
from imagenet_family.errors import ArchiveError
from imagenet_family.storage import reads
from imagenet_family.storage.reads import Fingerprint, LocalFile, RemoteFile

# Members that are fetched at once when many are read. They lie all over the archive, so without
# this a disk would be idle while an image is written, and the other way round.
_READS_AHEAD = 16
_ROWS_AT_ONCE = 1 << 12  # as Python's numbers, which take five times the memory of NumPy's
_INDEX_AGAIN = "Do not touch an archive while it is used; start again and it will be indexed anew."

_Member = tuple[int, int, int, bytes]  # offset, size, check, name


class ArchiveReader:
    """Reads members at the places that an index gives.

    The header block before the data is read with it and compared, and a local file's size and
    time of change are looked at after every read, or after many: an archive that changed since it
    was indexed is an error, never the wrong bytes. One reader serves all threads of a process. It
    can be pickled; the copy opens the archive again.
    """

    def __init__(self, path: str, fingerprint: Fingerprint, source: str | None = None) -> None:
        """Opens nothing yet.

        Args:
            path: `ArchiveIndex.path`.
            fingerprint: `ArchiveIndex.fingerprint`.
            source: `ArchiveIndex.source`, what messages call the archive; default: `path`.
        """
        self.path = path
        self.fingerprint = fingerprint
        self.source = path if source is None else source
        # By process: a lock that another thread held during a fork is never released in the child.
        self._locks: dict[int, threading.Lock] = {}
        self._opened: tuple[int, LocalFile | RemoteFile] | None = None  # by which process

    def read(self, offset: int, size: int, check: int, name: str | bytes = "") -> bytes:
        """Returns the data of one member.

        Args:
            offset: Where its data begins (`ArchiveIndex.offsets`).
            size: Bytes of it (`ArchiveIndex.sizes`).
            check: What its header must be (`ArchiveIndex.checks`).
            name: What messages call it.

        Raises:
            MissingFileError: The archive is gone.
            ArchiveError: The archive changed since it was indexed, or cannot be read.
        """
        file = self._open()
        data = self._read(file, int(offset), int(size), int(check), name)
        self._check_unchanged(file)
        return data

    def check_unchanged(self) -> None:
        """Checks that the archive is still the one that was indexed.

        Raises:
            MissingFileError: The archive is gone.
            ArchiveError: The archive changed since it was indexed.
        """
        self._check_unchanged(self._open())

    def read_all(
        self,
        offsets: np.ndarray,
        sizes: np.ndarray,
        checks: np.ndarray,
        names: np.ndarray,
    ) -> Iterator[bytes]:
        """Gives the data of many members in turn, for less than `read` takes for each.

        Several are fetched at once. Whether the archive is still the one that was indexed is
        looked at once, at the end: what this gives only counts when it has ended without an error.

        Args:
            offsets: As for `read`, of each member.
            sizes: The same.
            checks: The same.
            names: The same.

        Raises:
            MissingFileError: The archive is gone.
            ArchiveError: The archive changed since it was indexed, or cannot be read.
        """
        file = self._open()
        columns = (offsets, sizes, checks, names)
        if file.is_remote:
            yield from self._requested_ahead(file, _rows(columns))
        else:
            later = _rows(columns)
            for member in itertools.chain([None] * _READS_AHEAD, _rows(columns)):
                for offset, size, _, _ in itertools.islice(later, 1):
                    file.will_read(offset - headers.BLOCK, size + headers.BLOCK)
                if member is not None:
                    yield self._read(file, *member)
        self._check_unchanged(file)

    def _requested_ahead(self, file: RemoteFile, members: Iterable[_Member]) -> Iterator[bytes]:
        with ThreadPoolExecutor(_READS_AHEAD) as pool:
            pending: collections.deque[Future[bytes]] = collections.deque()
            try:
                for member in members:
                    pending.append(pool.submit(self._read, file, *member))
                    if len(pending) == _READS_AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Closes the archive; a later read opens it again."""
        with self._lock():
            if self._opened is not None:
                self._opened[1].close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "fingerprint": self.fingerprint, "source": self.source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _read(
        self, file: LocalFile | RemoteFile, offset: int, size: int, check: int, name: str | bytes
    ) -> bytes:
        if offset < headers.BLOCK or size < 0 or offset + size > self.fingerprint.size:
            raise self._error(
                name, offset, f"a member inside its {self.fingerprint.size} bytes", f"{size} bytes"
            )
        header, data = file.read_member(offset, size, headers.BLOCK)
        if len(data) != size:
            raise self._error(name, offset, f"{size} bytes", f"{len(data)}")
        if headers.check_of(header) != check:
            raise self._error(name, offset, "the header that was indexed", "another one before it")
        return data

    def _open(self) -> LocalFile | RemoteFile:
        # Connections do not survive a fork, so a child opens the archive for itself.
        opened, pid = self._opened, os.getpid()
        if opened is not None and opened[0] == pid:
            return opened[1]
        with self._lock():
            if self._opened is None or self._opened[0] != pid:
                file = reads.open_file(self.path)
                try:
                    self._check_unchanged(file)
                except ArchiveError:
                    file.close()
                    raise
                file.expect_scattered_reads()
                # Whoever makes and drops many data sources closes none of them.
                weakref.finalize(self, file.close).atexit = False
                self._opened = pid, file
            return self._opened[1]

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _check_unchanged(self, file: LocalFile | RemoteFile) -> None:
        if not file.has(self.fingerprint):
            raise ArchiveError(
                f"{self.source}: changed since it was indexed: expected {self.fingerprint}, "
                f"found {file.fingerprint()}. {_INDEX_AGAIN}"
            )

    def _error(self, name: str | bytes, offset: int, expected: str, found: str) -> ArchiveError:
        name = name.decode() if isinstance(name, bytes) else name
        return ArchiveError(
            f"{self.source}: member {name!r} at offset {offset}: expected {expected}, found "
            f"{found}: the archive changed since it was indexed, or is damaged. Start again; if "
            "that does not help, see what `imagenet-family verify` says of it."
        )


def _rows(columns: Sequence[np.ndarray]) -> Iterator[_Member]:
    for start in range(0, len(columns[0]), _ROWS_AT_ONCE):
        part = [column[start : start + _ROWS_AT_ONCE].tolist() for column in columns]
        yield from zip(*part, strict=True)

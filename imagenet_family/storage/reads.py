"""Positioned reads from a file, local or remote: the only place that opens an archive.

Local files are read with `pread`, everything with a `scheme://` with range requests through
fsspec. TensorFlow's file layer is never used: importing it costs more than indexing an archive.
"""

import contextlib
import dataclasses
import errno
import os
import stat
import weakref
from typing import cast

from imagenet_family.errors import ArchiveError, MissingFileError, UsageError
from imagenet_family.storage import stores
from imagenet_family.storage.paths import is_local


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """By what a file is recognised without reading it.

    Attributes:
        size: Bytes.
        mtime_ns: Time of the last change in nanoseconds; 0 for a remote file.
        tag: What a remote store says of the object's version; '' for a local file.
    """

    size: int
    mtime_ns: int
    tag: str


def open_file(path: str) -> "File":
    """Opens an absolute path or URL for positioned reads.

    Raises:
        MissingFileError: There is no such file.
        ArchiveError: It is not a file, or may not be read.
    """
    return LocalFile(path) if is_local(path) else RemoteFile(path)


class LocalFile:
    """A local file, closed when it is dropped. Reads may come from several threads."""

    is_remote = False

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ArchiveError(
                    f"{path}: expected a tar archive, found a directory or a special file. "
                    "Give the path of the archive itself."
                )
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise _open_error(path, error) from error
        self._closing = weakref.finalize(self, os.close, self._fd)
        self._closing.atexit = False
        self.size = os.fstat(self._fd).st_size

    def fingerprint(self) -> Fingerprint:
        """Returns the identity of the file as it is now."""
        status = os.fstat(self._fd)
        return Fingerprint(status.st_size, status.st_mtime_ns, "")

    def expect_scattered_reads(self) -> None:
        """Tells the system that reading ahead is of no use."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def will_read(self, offset: int, length: int) -> None:
        """Tells the system what is read soon, so that the disk has it ready."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError, OverflowError):  # a place that no file can have
                os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    def read(self, offset: int, length: int) -> bytes:
        """Returns `length` bytes from `offset`, fewer only where the file ends.

        Raises:
            ArchiveError: The system could not read them.
        """
        try:
            data = os.pread(self._fd, length, offset)
            # One call gives at most 2 GiB, and on some network file systems less.
            while 0 < len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise _read_error(self.path, offset, length, error) from error
        return data

    def read_member(self, offset: int, size: int, header: int) -> tuple[bytes, bytes]:
        """Returns the `header` bytes before `offset`, and `size` bytes from there.

        Raises:
            ArchiveError: The system could not read them.
        """
        # Apart, because cutting one piece in two copies the image once more. The data first: the
        # header lies in its first page but once in eight, so that the disk is asked once.
        try:
            data = os.pread(self._fd, size, offset)
            before = os.pread(self._fd, header, offset - header)
        except OSError as error:
            raise _read_error(self.path, offset, size, error) from error
        return before, data if len(data) == size else self.read(offset, size)

    def has(self, fingerprint: Fingerprint) -> bool:
        """Says whether this is the file's fingerprint now."""
        status = os.fstat(self._fd)
        return status.st_size == fingerprint.size and status.st_mtime_ns == fingerprint.mtime_ns

    def close(self) -> None:
        """Closes the file."""
        self._fd = -1
        self._closing()


class RemoteFile:
    """An object in a remote store, read by range requests. Reads may come from several threads."""

    is_remote = True

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fs, self._name = stores.filesystem(path)
            info = self._fs.info(self._name)
        except UsageError as error:
            raise ArchiveError(str(error)) from error
        except Exception as error:
            raise _open_error(path, error) from error
        if info.get("type") == "directory" or info.get("size") is None:
            raise ArchiveError(
                f"{path}: expected a tar archive, found a directory or an object without a known "
                "size. Give the path of the archive itself."
            )
        self.size = int(info["size"])
        self._fingerprint = Fingerprint(self.size, 0, stores.version_of(info))

    def fingerprint(self) -> Fingerprint:
        """Returns the identity of the object as it was when it was opened."""
        return self._fingerprint

    def expect_scattered_reads(self) -> None:
        """Does nothing: range requests fetch only what is asked for."""

    def will_read(self, offset: int, length: int) -> None:
        """Does nothing: a request would have to wait for its answer."""

    def read(self, offset: int, length: int) -> bytes:
        """Returns `length` bytes from `offset`, fewer only where the object ends.

        Raises:
            ArchiveError: The store could not be read.
        """
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        try:
            data = stores.retried(lambda: self._fs.cat_file(self._name, start=offset, end=end))
        except Exception as error:
            raise _read_error(self.path, offset, length, error) from error
        return cast(bytes, data)

    def read_member(self, offset: int, size: int, header: int) -> tuple[bytes, bytes]:
        """Returns the `header` bytes before `offset`, and `size` bytes from there.

        Raises:
            ArchiveError: The store could not be read.
        """
        piece = self.read(offset - header, header + size)
        return piece[:header], piece[header:]

    def has(self, fingerprint: Fingerprint) -> bool:
        """Says whether this was the object's fingerprint when it was opened."""
        return self.fingerprint() == fingerprint

    def close(self) -> None:
        """Does nothing: the connection belongs to fsspec."""


File = LocalFile | RemoteFile


def _open_error(path: str, error: Exception) -> ArchiveError | MissingFileError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingFileError(f"{path}: expected a tar archive, found no file of that name.")
    if isinstance(error, PermissionError):
        return ArchiveError(
            f"{path}: expected an archive that may be read, found no permission. Change the "
            "permissions of the file and its folders, or use another account."
        )
    return ArchiveError(f"{path}: the archive cannot be opened: {_describe(error)}.")


def _read_error(path: str, offset: int, length: int, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{path}: {length} bytes at offset {offset} cannot be read: {_describe(error)}. Check the "
        "disk or the connection and try again."
    )


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return f"{error.strerror} ({errno.errorcode[error.errno]})"
    return f"{type(error).__name__}: {error}"

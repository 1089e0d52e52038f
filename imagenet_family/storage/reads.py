"""Positioned reads from a file, local or remote: the only place that opens an archive.

Local files are read with `pread`, everything with a `scheme://` with range requests through
fsspec. TensorFlow's file layer is never used: importing it costs more than indexing an archive.
"""

import contextlib
import dataclasses
import errno
import os
import stat
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imagenet_family.errors import ArchiveError, MissingFileError
from imagenet_family.storage.locks import file_lock

_RETRY_PAUSES = (0.2, 1.0, 4.0)
"""Seconds before another attempt at a request that failed; some stores retry by themselves too."""

_REMOTE_IDENTITY = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
"""Names under which stores tell an object's version, the surest first."""


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


def is_remote(path: str) -> bool:
    """Says whether `path` is a URL (`s3://…`) rather than a local path."""
    return "://" in path


def absolute(path: str | os.PathLike) -> str:
    """Returns the path as an absolute local path or as a URL."""
    text = os.fspath(path)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    return text if is_remote(text) else str(Path(text).expanduser().absolute())


def join(directory: str, name: str) -> str:
    """Returns the path of a file in a local or remote directory."""
    return f"{directory.rstrip('/')}/{name}"


def open_file(path: str) -> "File":
    """Opens an absolute path or URL for positioned reads.

    Raises:
        MissingFileError: There is no such file.
        ArchiveError: It is not a file, or may not be read.
    """
    return RemoteFile(path) if is_remote(path) else LocalFile(path)


class LocalFile:
    """A local file, closed when it is dropped. Reads may come from several threads."""

    is_remote = False

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(Path(path).stat().st_mode):
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
        self._fs, self._name = _filesystem(path)
        try:
            # A listing from before may say what the object was then.
            self._fs.invalidate_cache(self._name)
            info = self._fs.info(self._name)
        except Exception as error:
            raise _open_error(path, error) from error
        if info.get("type") == "directory" or info.get("size") is None:
            raise ArchiveError(
                f"{path}: expected a tar archive, found a directory or an object without a known "
                "size. Give the path of the archive itself."
            )
        self.size = int(info["size"])
        version = next((f"{key}={info[key]}" for key in _REMOTE_IDENTITY if info.get(key)), "")
        self._fingerprint = Fingerprint(self.size, 0, version)

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
        pauses = iter(_RETRY_PAUSES)
        while True:
            try:
                return self._fs.cat_file(self._name, start=offset, end=end)
            except Exception as error:
                lasting = isinstance(error, FileNotFoundError | PermissionError)
                pause = None if lasting else next(pauses, None)
                if pause is None:
                    raise _read_error(self.path, offset, length, error) from error
                time.sleep(pause)

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


def exists(path: str) -> bool:
    """Says whether there is a file of that name."""
    if is_remote(path):
        fs, name = _filesystem(path)
        return fs.exists(name)
    return Path(path).is_file()


def remove(path: str) -> None:
    """Removes a file."""
    if is_remote(path):
        fs, name = _filesystem(path)
        fs.rm_file(name)
    else:
        Path(path).unlink(missing_ok=True)


def remove_all(folder: str, prefix: str, suffix: str = "") -> None:
    """Removes the files of a local folder, if there is one, whose names begin and end so."""
    with contextlib.suppress(FileNotFoundError):
        for entry in Path(folder).iterdir():
            if entry.name.startswith(prefix) and entry.name.endswith(suffix):
                entry.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: str, busy: str) -> Iterator[bool]:
    """Waits until no other process has this lock file; gives whether that could be made sure.

    It cannot on remote and on some network file systems. The lock ends with the process.

    Args:
        path: The lock file.
        busy: What another process is doing while this one waits.
    """
    if is_remote(path):
        yield False
        return
    with contextlib.ExitStack() as stack:
        try:
            alone = stack.enter_context(file_lock(path, busy))
        except OSError:
            alone = False
        yield alone


def read_whole(path: str, limit: int) -> bytes:
    """Returns a small file's content.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It has more than `limit` bytes.
        Exception: Whatever the system or fsspec raises.
    """
    if is_remote(path):
        fs, name = _filesystem(path)
        if (fs.info(name).get("size") or 0) > limit:
            raise ValueError(f"more than {limit} bytes")
        return fs.cat_file(name)
    with open(path, "rb") as file:
        # Not `read(limit)`, which takes that much memory whatever the file holds.
        if os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"more than {limit} bytes")
        return file.read()


def write_whole(path: str, pieces: Iterable[Any], *, flush: bool = False) -> None:
    """Writes a file so that it is there whole or not at all, making its directory.

    Args:
        path: The file.
        pieces: Its content.
        flush: Whether to wait for the disk, so that this also holds after a loss of power.

    Raises:
        Exception: Whatever the system or fsspec raises; nothing is left behind then.
    """
    if is_remote(path):
        fs, name = _filesystem(path)
        file = fs.open(name, "wb", autocommit=False)
        try:
            for piece in pieces:
                file.write(piece)
            file.close()
            file.commit()
        except BaseException:
            file.discard()
            raise
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{path}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _filesystem(path: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ArchiveError(
            f"{path}: this kind of storage cannot be used here: {error}. Install the fsspec "
            "package for it (s3fs, gcsfs, adlfs …) or copy the archive to a local disk."
        ) from error


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
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        return f"{error.strerror} ({errno.errorcode[error.errno]})"
    return f"{type(error).__name__}: {error}"

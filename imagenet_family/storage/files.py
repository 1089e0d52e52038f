"""Files and folders by name, on this machine and in object stores: one set of functions for both.

Every name is taken literally: nothing is a pattern, and nothing but what is named is touched. What
a path's owner is called is never asked, as it may have no name on this machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from imagenet_family.errors import BuildError, ImagenetFamilyError
from imagenet_family.storage import stores
from imagenet_family.storage.paths import PathLike, is_local, join, name_of

TEMPORARY_SUFFIX = ".incomplete"

# A large buffer makes one system call of many small pieces, as of a record's five.
_BUFFER = 1 << 20
_COPIED_AT_ONCE = 1 << 24
# Requests that are under way at once: a copy takes seconds.
_REQUESTS = 32


def exists(path: PathLike) -> bool:
    """Tells whether there is a file or a folder of that name."""
    if is_local(path):
        return os.path.exists(path)
    return stores.info(path) is not None


def is_folder(path: PathLike) -> bool:
    """Tells whether there is a folder of that name; in a store, whether anything is in it."""
    if is_local(path):
        return os.path.isdir(path)
    found = stores.info(path)
    return found is not None and (found["type"] == "directory" or bool(listing(path)))


def size(path: PathLike) -> int:
    """Gives the bytes of a file.

    Raises:
        OSError: The file is missing.
    """
    return stamp(path)[0]


def stamp(path: PathLike) -> tuple[int, int | str]:
    """Gives by what a change of a file is noticed.

    Returns:
        Its bytes, and its time in nanoseconds, or what a store says of the object's version.

    Raises:
        OSError: The file is missing.
    """
    if is_local(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    found = stores.info(path)
    if found is None or found["type"] == "directory":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return int(found["size"]), stores.version_of(found)


def replaced_ns(path: PathLike) -> int:
    """Gives when a file of this machine was last replaced or changed, in nanoseconds; 0 elsewhere.

    Unlike the time in `stamp` it cannot be set, as wget, rsync and `cp -p` do with that of a file
    that they fetch again. But chmod and the like change it, too.
    """
    with contextlib.suppress(OSError):  # told by whoever reads it
        return os.stat(path).st_ctime_ns if is_local(path) else 0
    return 0


def listing(folder: PathLike) -> list[str]:
    """Gives the names of what is in a folder, sorted; a folder that is not there is empty.

    Raises:
        OSError: It cannot be listed.
    """
    try:
        if is_local(folder):
            return sorted(os.listdir(folder))
        filesystem, root = stores.filesystem(folder)
        found = [entry["name"] for entry in filesystem.ls(root, detail=True)]
    except FileNotFoundError:
        return []
    # A store lists an object of the folder's own name, too, and a folder without a name in it.
    inside = {name[len(root) + 1 :].rstrip("/") for name in found if name.startswith(f"{root}/")}
    return sorted(inside - {""})


def read_bytes(path: PathLike, limit: int | None = None) -> bytes:
    """Gives a file's content.

    Args:
        path: The file.
        limit: Most bytes that it may have.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It has more than `limit` bytes.
        OSError: It cannot be read.
    """
    if not is_local(path):
        if limit is not None:
            _check_limit(size(path), limit)
        filesystem, name = stores.filesystem(path)
        return cast(bytes, filesystem.cat_file(name))
    with open(path, "rb") as file:
        if limit is not None:
            # Not `read(limit)`, which takes that much memory whatever the file holds.
            _check_limit(os.fstat(file.fileno()).st_size, limit)
        return file.read()


def _check_limit(found: int, limit: int) -> None:
    if found > limit:
        raise ValueError(f"more than {limit} bytes")


def open_read(path: PathLike) -> BinaryIO:
    """Opens a file for reading from its start.

    Raises:
        OSError: It cannot be opened.
    """
    if is_local(path):
        return open(path, "rb", buffering=_BUFFER)
    filesystem, name = stores.filesystem(path)
    return cast(BinaryIO, filesystem.open(name, "rb"))


@contextlib.contextmanager
def whole_name(path: PathLike) -> Iterator[str]:
    """Gives a temporary name on this machine, whose file becomes `path` if all goes well.

    It does not wait for the disk: after a loss of power the file may be cut, which is why an
    unfinished build checks every shard before it goes on from it.

    Raises:
        BuildError: Instead of an `OSError`, with the file and what to do.
    """
    if not is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = join(folder, name_of(path))
            yield temporary
            with whole_file(path) as target, open(temporary, "rb") as source:
                shutil.copyfileobj(source, target, _COPIED_AT_ONCE)
        return
    temporary = f"{os.fspath(path)}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    with _explained(path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # what happened first matters more
                os.unlink(temporary)
            raise


@contextlib.contextmanager
def whole_file(path: PathLike, *, flush: bool = False) -> Iterator[BinaryIO]:
    """Gives an open file that appears as `path`, whole, if all goes well, and not at all if not.

    Args:
        path: The file.
        flush: Whether to wait for the disk, so that this also holds after a loss of power.

    Raises:
        BuildError: Instead of an `OSError`, with the file and what to do.
    """
    if is_local(path):
        with whole_name(path) as temporary, open(temporary, "wb", buffering=_BUFFER) as file:
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        return
    with _explained(path):
        filesystem, name = stores.filesystem(path)
        # Committed when it is closed: a small object is one request then, instead of three.
        remote = filesystem.open(name, "wb")
        try:
            yield cast(BinaryIO, remote)
            remote.close()
        except BaseException:
            remote.discard()
            remote.closed = True  # or it would appear after all when it is collected
            raise


def write_bytes(path: PathLike, data: bytes) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        BuildError: It cannot be written.
    """
    if is_local(path):
        with whole_file(path) as file:
            file.write(data)
        return
    with _explained(path):
        filesystem, name = stores.filesystem(path)
        filesystem.pipe_file(name, data)  # in one request


def write_output(path: PathLike, data: bytes) -> None:
    """Writes what a person has asked for, into its place: that may be a pipe or `/dev/stdout`.

    Raises:
        BuildError: It cannot be written.
    """
    if not is_local(path):
        write_bytes(path, data)
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise BuildError(f"{os.fspath(path)} cannot be written: {error}.") from error


def make_folder(path: PathLike) -> None:
    """Makes a folder and those above it; a store has none to make.

    Raises:
        OSError: It cannot be made.
    """
    if is_local(path):
        os.makedirs(path, exist_ok=True)


def rename(source: PathLike, target: PathLike) -> None:
    """Gives a file or folder of this machine another name, which must be free.

    Raises:
        OSError: It cannot be renamed.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    os.rename(source, target)


def remove(path: PathLike) -> None:
    """Removes a file, if it is there.

    Raises:
        OSError: It cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if is_local(path):
            os.unlink(path)
        else:
            filesystem, name = stores.filesystem(path)
            filesystem.rm_file(name)


def remove_named(folder: PathLike, prefix: str, suffix: str = "") -> None:
    """Removes the files of a folder whose names begin and end so.

    Raises:
        OSError: One of them cannot be removed.
    """
    for name in listing(folder):
        if name.startswith(prefix) and name.endswith(suffix):
            remove(join(folder, name))


def remove_tree(folder: PathLike) -> None:
    """Removes a folder with all that is in it, if it is there; or a file.

    Raises:
        OSError: Something cannot be removed.
    """
    if not is_local(folder):
        filesystem, root = stores.filesystem(folder)
        with ThreadPoolExecutor(_REQUESTS) as pool:
            list(pool.map(filesystem.rm_file, stores.names_below(filesystem, root)))
        return
    while os.path.lexists(folder):
        try:
            shutil.rmtree(folder)
        except NotADirectoryError:
            remove(folder)
        except FileNotFoundError:  # another process removes it, too
            continue


def copy_all(source: PathLike, target: PathLike, names: Iterable[str]) -> None:
    """Copies objects of one folder to another one of the same store, inside the store.

    Raises:
        OSError: One of them cannot be copied.
    """
    filesystem, origin = stores.filesystem(source)
    _, destination = stores.filesystem(target)

    def copy(name: str) -> None:
        filesystem.cp_file(f"{origin}/{name}", f"{destination}/{name}")

    with ThreadPoolExecutor(_REQUESTS) as pool:
        list(pool.map(copy, names))


def flush_folder(folder: PathLike) -> None:
    """Waits until a folder of this machine and its files are on the disk.

    Raises:
        OSError: The disk refuses.
    """
    folder = Path(folder)
    for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
        flush(path)


def flush(path: PathLike) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: PathLike) -> Iterator[None]:
    try:
        yield
    except ImagenetFamilyError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: PathLike, error: OSError) -> BuildError:
    """Says what kept a file from being written."""
    remedies = {
        errno.ENOSPC: "Make space and run the same command again; finished shards are kept",
        errno.EDQUOT: "Make space and run the same command again; finished shards are kept",
        errno.EROFS: "Choose a folder that can be written to",
        errno.EACCES: "Choose a folder that you may write to, or change its permissions",
        errno.EPERM: "Choose a folder that you may write to, or change its permissions",
        errno.ENOENT: "Choose a folder that exists or can be made, and let nothing else change it",
        errno.EEXIST: "Choose a folder that exists or can be made",
        errno.ENOTDIR: "Choose a folder that exists or can be made",
        errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    }
    remedy = remedies.get(error.errno or 0, "Run the same command again; finished shards are kept")
    return BuildError(f"Cannot write {os.fspath(path)}: {error}. {remedy}.")

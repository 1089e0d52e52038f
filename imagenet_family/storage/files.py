"""Files: there whole or not at all, what keeps them from it, and how a change is noticed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from imagenet_family.errors import BuildError
from imagenet_family.storage.stores import is_local

TEMPORARY_SUFFIX = ".incomplete"


def stamp(path: epath.PathLike) -> tuple[int, int]:
    """Gives by what a change of a file is noticed: its bytes, and its time in nanoseconds.

    Object stores tell the time in seconds.

    Raises:
        OSError: The file is missing.
    """
    if is_local(path):
        status = Path(path).stat()
        return status.st_size, status.st_mtime_ns
    status = epath.Path(path).stat()
    return status.length, int(status.mtime) * 10**9


def replaced_ns(path: epath.PathLike) -> int:
    """Gives when a file of this machine was last replaced or changed, in nanoseconds; 0 elsewhere.

    Unlike the time in `stamp` it cannot be set, as wget, rsync and `cp -p` do with that of a file
    that they fetch again. But chmod and the like change it, too.
    """
    with contextlib.suppress(OSError):  # told by whoever reads it
        return Path(path).stat().st_ctime_ns if is_local(path) else 0
    return 0


@contextlib.contextmanager
def atomic_file(path: epath.Path) -> Iterator[epath.Path]:
    """Gives a temporary name beside `path` that becomes `path` if all goes well.

    It does not wait for the disk: after a loss of power the file may be cut, which is why an
    unfinished build checks every shard before it goes on from it.

    Raises:
        BuildError: Instead of an `OSError`, with the file and what to do.
    """
    local = is_local(path)
    # In an object store a file appears when it is closed, and renaming is copying.
    suffix = f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}" if local else ""
    temporary = path.parent / f"{path.name}{suffix}"
    done = False
    try:
        yield temporary
        if local:
            temporary.replace(path)
        done = True
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if not done:  # closed by an error, it may have appeared in part
            with contextlib.suppress(OSError):  # what happened first matters more
                temporary.unlink(missing_ok=True)


def flush_folder(folder: epath.PathLike) -> None:
    """Waits until a folder of this machine and its files are on the disk.

    Raises:
        OSError: The disk refuses.
    """
    folder = Path(folder)
    for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
        flush(path)


def flush(path: epath.PathLike) -> None:
    """Waits until a file, or the list of a folder's files, is on the disk.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: epath.PathLike, error: OSError) -> BuildError:
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
    remedy = remedies.get(error.errno, "Run the same command again; finished shards are kept")
    return BuildError(f"Cannot write {os.fspath(path)}: {error}. {remedy}.")

"""Locks between processes of one or more machines, as far as the file system has them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from imagenet_family.storage.paths import PathLike, is_local

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What network file systems say that are mounted without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def exclusive(path: PathLike, busy: str) -> Iterator[bool]:
    """Waits until no other process has this lock file; gives whether that could be made sure.

    It cannot in stores and on some network file systems. The lock ends with the process.

    Args:
        path: The lock file.
        busy: What another process is doing while this one waits.
    """
    with contextlib.ExitStack() as stack:
        alone = False
        if is_local(path):
            with contextlib.suppress(OSError):
                alone = stack.enter_context(file_lock(path, busy))
        yield alone


@contextlib.contextmanager
def file_lock(path: PathLike, busy: str) -> Iterator[bool]:
    """Holds a lock file; another process that holds it is waited for.

    The lock ends with the process, however that dies. On a file system without locks there is
    none: gives whether it is held.

    Args:
        path: The lock file, which stays.
        busy: What another process is doing while this one waits.

    Raises:
        OSError: The lock file cannot be made.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        held = _lock(file.fileno(), path, busy)
        try:
            yield held
        finally:
            if held:  # closing is not enough where a forked child has the file open, too
                fcntl.flock(file, fcntl.LOCK_UN)


def _lock(descriptor: int, path: PathLike, busy: str) -> bool:
    if fcntl is None:
        return False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("Another process is %s; waiting for it.", busy)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning(
            "%s cannot be locked (%s). Run no other process beside this one that is %s.",
            path,
            error,
            busy,
        )
        return False
    return True

"""Locks between processes of one or more machines, as far as the file system has them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from absl import logging

# What network file systems say that are mounted without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def file_lock(path: str | os.PathLike, busy: str) -> Iterator[None]:
    """Holds a lock file; another process that holds it is waited for.

    The lock ends with the process, however that dies. On a file system without locks there is
    none.

    Args:
        path: The lock file, which stays.
        busy: What another process is doing while this one waits.

    Raises:
        OSError: The lock file cannot be made.
    """
    import filelock  # slow to import, and seldom needed

    lock = filelock.FileLock(os.fspath(path))
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            logging.warning("Another process is %s; waiting for it.", busy)
            lock.acquire()
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logging.warning("%s cannot be locked (%s). Do not run another build beside.", path, error)
    try:
        yield
    finally:
        lock.release()  # does nothing if it is not held

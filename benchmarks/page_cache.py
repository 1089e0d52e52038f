"""Putting files out of memory, so that a benchmark reads them from the disk."""

import os
from pathlib import Path


def forget(folder: Path) -> None:
    """Makes the system forget all files of a folder; what was written is on the disk before.

    It has no effect on file systems that live in memory.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

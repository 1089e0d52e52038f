"""Real limits of a machine, for tests: small disks, read-only ones, and no permission."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

_NOBODY = 65534


class SmallDisk:
    """A file system of its own that holds only so many bytes."""

    def __init__(self, folder: Path, options: str):
        self.folder = folder
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this user may not mount a file system: {error}")

    def remount(self, options: str):
        """Changes its options, such as `size=64m` or `ro`."""
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def close(self):
        """Takes it away."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(folder: Path, options: str):
    """Mounts a disk of `options`, such as `size=256k`, at a new folder."""
    disk = SmallDisk(folder, options)
    try:
        yield disk
    finally:
        disk.close()


@contextlib.contextmanager
def ordinary_user():
    """Gives up root's right to read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)

"""What is checked and told before the hours are spent: space, permission, open files, time.

The plan knows every record, so sizes are exact but for images that must be converted (23 in all of
ImageNet's train split).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagenet_family.errors import BuildError
from imagenet_family.shards import formats, tfrecord
from imagenet_family.shards.digest import Record
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, is_local, join

if TYPE_CHECKING:
    from imagenet_family.examples.plan import SplitPlan

# Files that a process has open beside those of its workers: libraries, archives, terminals.
_DESCRIPTORS = 64
_DESCRIPTORS_PER_WORKER = 8
# A trial moves this part of what each worker will move, which wait for it meanwhile.
_TRIAL_SHARE = 0.005
_MAX_TRIAL = 64 << 20
# With less, a trial would tell little, and the build is done in seconds.
_MIN_TRIAL = 4 << 20


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a build takes.

    Attributes:
        needed: Bytes of the files to write.
        written: Bytes of them that are there already, from a build that was stopped.
        free: Bytes free on the disk; None where that cannot be known.
        seconds: How long the rest will take, from a trial; None if it is too little to tell.
    """

    needed: int
    written: int
    free: int | None
    seconds: float | None


def estimate(
    plans: Sequence[SplitPlan], staged: PathLike, file_format: str, workers: int | None
) -> Estimate:
    """Tells what a build takes; a few of its images are read and written to see how fast that is.

    Args:
        plans: What is to be written.
        staged: The folder of the shards; it need not exist.
        file_format: A value of `tfds.core.FileFormat`.
        workers: Number of processes of this machine; None if others write.

    Raises:
        BuildError: Nothing can be written there.
        ImagenetFamilyError: An image of the trial cannot be read.
    """
    needed = sum(map(formats.named(file_format).file_bytes, plans))
    written = bytes_in(staged)
    if not is_local(staged):
        return Estimate(needed, written, None, None)
    folder = _existing(staged)
    if workers is None:
        _touch(folder)
        seconds = None
    else:
        largest = max(plans, key=lambda plan: plan.num_bytes)
        seconds = _trial(largest, folder, max(0, needed - written), workers)
    return Estimate(needed, written, shutil.disk_usage(folder).free, seconds)


def bytes_in(folder: PathLike) -> int:
    """Gives the bytes of a folder's files; 0 if there is none."""
    total = 0
    for name in files.listing(folder):
        with contextlib.suppress(FileNotFoundError):  # a running build has renamed it
            total += files.size(join(folder, name))
    return total


def check(folder: PathLike, needed: int, workers: int) -> None:
    """Checks space and open files.

    Args:
        folder: Where files are written, perhaps with some of them already.
        needed: Bytes of all files.
        workers: Number of processes.

    Raises:
        BuildError: The build would not succeed.
    """
    _check_space(folder, needed)
    _check_descriptors(workers)


def _check_space(folder: PathLike, needed: int) -> None:
    if not is_local(folder):
        return
    missing = needed - bytes_in(folder)
    free = shutil.disk_usage(_existing(folder)).free
    if missing > free:
        raise BuildError(
            f"{os.fspath(folder)} has {free:,} bytes free, and {missing:,} more are needed. Make "
            "space or choose another folder; nothing was written yet."
        )


def _check_descriptors(workers: int) -> None:
    """Raises this process's limit of open files if need be."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = _DESCRIPTORS + _DESCRIPTORS_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BuildError(
            f"This process may have {hard} files open at once, and {workers} workers take up to "
            f"{needed}. Raise the limit (ulimit -Hn {needed}) or use fewer workers."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _existing(folder: PathLike) -> Path:
    full = Path(folder).absolute()
    return next(path for path in (full, *full.parents) if path.exists())


def _trial(plan: SplitPlan, folder: PathLike, left: int, workers: int) -> float | None:
    """Reads and writes the first records of a plan; gives the seconds for `left` bytes."""
    limit = min(_MAX_TRIAL, int(left / workers * _TRIAL_SHARE))
    first = plan.shard(0)
    count = int(np.searchsorted(np.cumsum(first.record_sizes()), limit))
    if limit < _MIN_TRIAL or not count:
        _touch(folder)
        return None
    wall, cpu, moved = time.perf_counter(), time.process_time(), 0
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for parts in first.take(np.arange(count)).records():
                record = Record.of(parts)
                tfrecord.write_record(file, record)
                moved += record.size
            file.flush()
    except OSError as error:
        raise files.write_error(folder, error) from error
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Processes share the disk but not the cores.
    return (cpu / workers + max(0.0, wall - cpu)) * left / moved


def _touch(folder: PathLike) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise files.write_error(folder, error) from error

"""How fast the storage under a file is, measured for a moment, and how much memory is to spare.

Some megabytes are read in a row from the beginning of the file, which whoever reads it needs
anyway, and pages at random places that are not in memory. Storage with a limit, such as a cloud
volume, lets a burst pass at full speed before the limit holds. This is why more is read than one
would need for storage without a limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

from absl import logging

from imagenet_family.errors import ImagenetFamilyError

_PAGE = 4096
_MB = 1 << 20

# A volume of 125 MB/s lets 12.5 MB pass at once, and what is being read ahead besides.
_ROW = 32 * _MB
_ROW_IN_MEMORY = 4 * _MB
_PIECES = (256 << 10, 256 << 10, 512 << 10)
# A disk gives what it can only when it has several reads to choose from, and a store or a volume
# only when several are under way.
_AT_ONCE = 8
_ALONE = 8
# With so many reads a limit of 1,000 a second shows, which the kernel gives out for a tenth of a
# second at a time; where reads are fast they take a few milliseconds.
_ENOUGH = 128
# Places that are looked at: so many if all are in memory, and at most.
_FEWEST = 64
_MOST = 512
# Seconds at most: at random places alone; those with the ones together; and in a row.
_ALONE_SECONDS = 0.05
_RANDOM_SECONDS = 0.1
_ROW_SECONDS = 0.15
# Where the system does not tell what is in memory: no storage answers so quickly, and few reads
# of what is in memory take longer, those that had to wait for the processor.
_FROM_MEMORY_SECONDS = 20e-6
_SLOW_IN_MEMORY = 0.15

_REMOTE_READS = 3
_REMOTE_SECONDS = 0.3  # after which no more is asked for but the row
_REMOTE_PIECE = 1 * _MB

# The rest is for what runs beside, and for pages that are put out of memory too early.
_SPARE_SHARE = 0.75


@dataclasses.dataclass(frozen=True)
class StorageSpeed:
    """How fast the storage under a file is.

    The times are those of what is not in memory; of a file that is in memory, those of memory.

    Attributes:
        lone_read_seconds: Seconds that a read of 4 KiB at a random place takes, one after another.
        random_read_seconds: Seconds per read where several are under way at once.
        bytes_per_second: Bytes a second when they are read in a row.
        cached: Which share of the file is in memory, 0 to 1, from a sample; 0 for a remote one.
        is_remote: Whether it is an object in a store.
    """

    lone_read_seconds: float
    random_read_seconds: float
    bytes_per_second: float
    cached: float
    is_remote: bool


class Readable(Protocol):
    """An open file that is read at any place: `storage.reads.LocalFile` or `RemoteFile`."""

    @property
    def path(self) -> str:
        """The absolute path or the URL."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def is_remote(self) -> bool:
        """Whether it is an object in a store."""

    def read(self, offset: int, length: int) -> bytes:
        """Returns `length` bytes from `offset`, fewer only where the file ends."""


def measure(file: Readable) -> StorageSpeed | None:
    """Measures the storage under an open file.

    It takes some 20 ms where storage is fast and about 0.3 s elsewhere, longer only by the reads
    that were under way then. Nothing that goes wrong is raised; it is logged.

    Args:
        file: The file.

    Returns:
        What was found; None for an empty file, or if it could not be measured.
    """
    if file.size == 0:
        return None
    try:
        return _measure_remote(file) if file.is_remote else _measure_local(file)
    except (OSError, ImagenetFamilyError, NotImplementedError) as error:
        logging.warning("How fast %s can be read could not be measured: %s", file.path, error)
        return None


def memory_to_spare(root: Path = Path("/")) -> int | None:
    """Gives how many bytes of memory may be used for files that are read, or for buffers.

    This is most of what the system calls available, within the limits of the control groups
    (v1 or v2) that this process is in.

    Args:
        root: Where `proc` and the folders of the control groups are.

    Returns:
        Bytes; None where the system does not tell.
    """
    available = _available_memory(root / "proc" / "meminfo")
    if available is None:
        return None
    return int(_SPARE_SHARE * max(0, min([available, *_free_in_groups(root)])))


class _Course:
    """How much was done after which time.

    Attributes:
        seconds: Time so far.
        done: Reads or bytes so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.done = 0.0
        self._points = [(0.0, 0.0)]

    def add(self, seconds: float, done: float) -> None:
        """Notes so much more done in so many more seconds."""
        self.seconds += max(seconds, 1e-9)
        self.done += done
        self._points.append((self.seconds, self.done))

    def per_second(self) -> float:
        """Gives the slope of the line nearest to all points, so that a burst counts little."""
        seconds, done = zip(*self._points, strict=True)
        return statistics.linear_regression(seconds, done).slope


def _measure_local(file: Readable) -> StorageSpeed:
    if not hasattr(os, "preadv"):
        raise NotImplementedError("this system has no reads at a place")
    # A descriptor of its own, as the system keeps with each what it reads ahead.
    descriptor = os.open(file.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        pages = _Pages(descriptor, file.size)
        # First, as what is still being read ahead after a row would hold them up.
        pages.read()
        rate = _read_in_a_row(descriptor, *pages.row())
    finally:
        os.close(descriptor)
    lone, together = pages.seconds()
    return StorageSpeed(lone, together, rate, pages.cached(), is_remote=False)


class _Pages:
    """Reads pages at random places of a local file, some of which may be in memory.

    Where the system does not tell which are, as on tmpfs and NFS, those are that come at once.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._buffer = bytearray(_PAGE)
        if hasattr(os, "posix_fadvise"):  # nothing but the page is to be read
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        self._tells = self._is_cached(0) is not None
        pages = -(-size // _PAGE)
        chosen = random.sample(range(pages), min(pages, _MOST))
        self._places = iter([page * _PAGE for page in chosen])
        self._cached = 0  # pages that were in memory
        self._missing = 0
        self._quick: list[float] = []  # the seconds that one of those took, read alone
        self._alone: list[float] = []
        self._reads = _Course()

    def read(self) -> None:
        """Reads, alone and then together, until the answer is clear or the time is over."""
        start = time.perf_counter()
        for place in self._places:
            self._read_alone(place)
            in_memory = self._in_memory()
            enough = self._quick if in_memory else self._alone
            if len(enough) >= (_FEWEST if in_memory else _ALONE):
                break
            if time.perf_counter() - start > _ALONE_SECONDS:
                break
        while not self._in_memory() and self._reads.done < _ENOUGH:
            if time.perf_counter() - start > _RANDOM_SECONDS or not self._read_together():
                break

    def row(self) -> tuple[int, int]:
        """Gives from where to where a row is not in memory: from the beginning, if it can be."""
        if self._in_memory():
            return 0, min(_ROW_IN_MEMORY, self._size)
        length = min(_ROW, self._size)
        further = (random.randrange(self._size - length + 1) for _ in range(_FEWEST))
        for start in (0, *further):
            if not self._is_cached((start + length // 2) // _PAGE * _PAGE):
                return start, start + length
        return 0, length

    def seconds(self) -> tuple[float, float]:
        """Gives the seconds of a read alone, and of each where several are under way."""
        lone = statistics.median(self._quick if self._in_memory() else self._alone)
        if self._in_memory():
            return lone, lone
        together = 1 / self._reads.per_second()
        return max(lone, together), together  # alone, they may have been a burst

    def cached(self) -> float:
        """Gives which share of the pages was in memory."""
        return 1.0 if self._in_memory() else self._cached / (self._cached + self._missing)

    def _in_memory(self) -> bool:
        slow = 0.0 if self._tells else _SLOW_IN_MEMORY
        return self._missing <= slow * (self._cached + self._missing)

    def _read_alone(self, place: int) -> None:
        start = time.perf_counter()
        cached = self._is_cached(place)
        if not cached:
            os.preadv(self._descriptor, [self._buffer], place)
        seconds = time.perf_counter() - start
        if cached is None:
            cached = seconds < _FROM_MEMORY_SECONDS
        (self._quick if cached else self._alone).append(seconds)
        if not cached:
            self._reads.add(seconds, 1)
        self._cached += cached
        self._missing += not cached

    def _read_together(self) -> bool:
        """Reads some pages that are not in memory; gives whether there were as many."""
        # Where it is not known which are, it is so many of them as of those read alone.
        each = 1.0 if self._tells else 1 - self.cached()
        places: list[int] = []
        start = time.perf_counter()
        for place in self._places:
            if self._is_cached(place):
                self._cached += 1
                if not places:
                    start = time.perf_counter()
                continue
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._descriptor, place, _PAGE, os.POSIX_FADV_WILLNEED)
            places.append(place)
            if len(places) == _AT_ONCE:
                break
        for place in places:
            os.preadv(self._descriptor, [self._buffer], place)
            now = time.perf_counter()
            self._reads.add(now - start, each)
            start = now
        if self._tells:
            self._missing += len(places)
        return len(places) == _AT_ONCE

    def _is_cached(self, place: int) -> bool | None:
        """Tells whether a page is in memory; None if the system won't tell.

        Of a page that is not, the system begins to read it.
        """
        try:
            return os.preadv(self._descriptor, [self._buffer], place, os.RWF_NOWAIT) > 0
        except AttributeError:  # macOS
            return None
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return False
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                return None
            raise


def _read_in_a_row(descriptor: int, place: int, end: int) -> float:
    """Gives the bytes a second with which a part of a file comes."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    buffer, course, pieces = memoryview(bytearray(_MB)), _Course(), iter(_PIECES)
    first = 0.0
    while place < end and course.seconds < _ROW_SECONDS and first < 2 * _ROW_SECONDS:
        length = min(next(pieces, _MB), end - place)
        begun = time.perf_counter()
        found = os.preadv(descriptor, [buffer[:length]], place)
        seconds = time.perf_counter() - begun
        if not found:
            raise OSError(errno.EIO, "the file became shorter")
        if first:
            course.add(seconds, found)
        first = first or seconds  # which is how long it took to get there, too
        place += found
    return course.per_second() if course.done else found / first


def _measure_remote(file: Readable) -> StorageSpeed:
    def seconds_of(places: Sequence[int], length: int) -> float:
        begun = time.perf_counter()
        for _ in pool.map(lambda place: file.read(place, length), places):
            pass
        return time.perf_counter() - begun

    def at_random(count: int) -> list[int]:
        return [random.randrange(file.size) for _ in range(count)]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        end = time.perf_counter() + _REMOTE_SECONDS
        lone = seconds_of(at_random(1), _PAGE)  # which opens the connection
        for _ in range(_REMOTE_READS - 1):
            if time.perf_counter() < end:
                lone = min(lone, seconds_of(at_random(1), _PAGE))
        together = lone
        if time.perf_counter() < end:
            together = min(lone, seconds_of(at_random(_AT_ONCE), _PAGE) / _AT_ONCE)
        row = range(0, min(file.size, _AT_ONCE * _REMOTE_PIECE), _REMOTE_PIECE)
        seconds = seconds_of(row, _REMOTE_PIECE)
    rate = min(file.size, len(row) * _REMOTE_PIECE) / max(seconds, 1e-9)
    return StorageSpeed(lone, together, rate, cached=0.0, is_remote=True)


def _available_memory(meminfo: Path) -> int | None:
    """Gives what the system could give without using a swap file, in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None


def _free_in_groups(root: Path) -> Iterator[int]:
    """Yields the bytes that are free within each memory limit that this process is under."""
    for folder in _memory_groups(root):
        # v2, then v1. What was read and is not in use can be put out of memory at once.
        for limits, usage, inactive in (
            (("memory.max", "memory.high"), "memory.current", "inactive_file"),
            (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
        ):
            for limit in limits:
                with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                    most = int((folder / limit).read_text())
                    used = int((folder / usage).read_text())
                    yield most - max(used - _statistic(folder / "memory.stat", inactive), 0)


def _statistic(path: Path, name: str) -> int:
    """Gives a number of a control group's statistics, 0 if it is not there."""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _memory_groups(root: Path) -> Iterator[Path]:
    """Yields the folders of the control groups that this process is in, with those above them."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return
    paths: dict[str, PurePosixPath] = {}
    for line in groups:  # hierarchy:controllers:path, where v2 has no controllers
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            paths["cgroup2"] = PurePosixPath(path)
        elif "memory" in controllers.split(","):
            paths["cgroup"] = PurePosixPath(path)
    for line in mounts:
        fields, (kind, _, options) = line.split(), line.partition(" - ")[2].split()
        if kind not in paths or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        top, mounted = (_unescaped(field) for field in fields[3:5])
        folder = root / mounted.lstrip("/")
        yield folder
        # A container may see its own group as the top, under another name than the kernel's.
        if paths[kind].is_relative_to(top):
            for part in paths[kind].relative_to(top).parts:
                folder /= part
                yield folder


def _unescaped(field: str) -> str:
    """Gives a path of mountinfo, where spaces and the like are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)

"""Walking a whole archive: its own headers, then those of the tars in it.

With the archive in the page cache one thread is fastest, since threads would only queue for the
interpreter; when every read waits for a disk or a network, many reads in flight are. So the pace
is measured as the walk goes, and threads are used where reads turn out to wait.
"""

import collections
import concurrent.futures
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from imagenet_family.copies.tar import headers, links
from imagenet_family.copies.tar.parts import Members, Part, Region, Skipped
from imagenet_family.copies.tar.walk import RegionWalk
from imagenet_family.errors import ArchiveError
from imagenet_family.storage.reads import File

DEFAULT_WORKERS = 64
_SLOW_SECONDS_PER_HEADER = 20e-6
_LOCAL_PROBE = 16 << 20
_REMOTE_PROBE = 1 << 20
_MIN_SEGMENT = 8 << 20
_SCAN_CHUNK = 64 << 10
_MAX_SCAN = 4 << 20


def walk_archive(
    file: File,
    source: str,
    on_progress: Callable[[int, int], None],
    workers: int | None,
) -> tuple[Members, list[Skipped]]:
    """Returns the files of an archive and of the tars in it, and what was left out.

    Args:
        file: The archive.
        source: What messages call it.
        on_progress: Called from several threads with (members, bytes of them) walked over.
        workers: Most reads in flight at once; None for the default.

    Raises:
        ArchiveError: The archive is damaged or holds something that cannot be used.
    """
    workers = DEFAULT_WORKERS if workers is None else workers
    file.expect_scattered_reads()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        walker = _ArchiveWalk(file, source, on_progress, workers, pool)
        outer = walker.outer()
        nested = iter(walker.nested([part for part in outer if isinstance(part, Region)]))
        parts: list[Part] = []
        for part in links.resolve(outer, source):
            if isinstance(part, Region):
                parts += links.resolve(next(nested), source)
            else:
                parts.append(part)
    return _join(_members(parts)), [part for part in parts if isinstance(part, Skipped)]


class _Segment(NamedTuple):
    """Headers found by starting in the middle of an archive; true if its start is a header."""

    start: int
    end: int | None
    parts: list[Part]


class _ArchiveWalk:
    """One walk over one archive."""

    def __init__(
        self,
        file: File,
        source: str,
        on_progress: Callable[[int, int], None],
        workers: int,
        pool: concurrent.futures.Executor,
    ) -> None:
        self._file = file
        self._source = source
        self._on_progress = on_progress
        self._workers = workers
        self._pool = pool

    def outer(self) -> list[Part]:
        """Walks the archive's own headers, in segments where that pays."""
        region = Region(0, self._file.size, "", nested=False)
        walk = self._region_walk(region)
        began = time.perf_counter()
        position = walk.run(0, _REMOTE_PROBE if self._file.is_remote else _LOCAL_PROBE)
        if position is None:
            return walk.parts
        flat = not any(isinstance(part, Region) for part in walk.parts)
        bounds = self._segment_bounds(position)
        if flat and len(bounds) > 2 and self._is_slow(walk.parts, began):
            found = self._pool.map(
                lambda begin, end: self._segment(region, begin, end), bounds[:-1], bounds[1:]
            )
            for segment in found:
                if segment is None or position is None or position > segment.start:
                    continue
                # Only a header that the walk from the front arrives at is a header.
                position = walk.run(position, segment.start)
                if position == segment.start:
                    walk.parts.extend(segment.parts)
                    self._on_progress(*_counts(segment.parts))
                    position = segment.end
        if position is not None:
            walk.run(position)
        return walk.parts

    def nested(self, regions: list[Region]) -> Iterable[list[Part]]:
        """Yields the parts of each region, in order."""
        pending = collections.deque(regions)
        slow = self._file.is_remote
        while pending:
            if not slow:
                began = time.perf_counter()
                parts = self._whole(pending.popleft())
                slow = self._is_slow(parts, began)
                yield parts
            else:
                batch = [pending.popleft() for _ in range(min(len(pending), 4 * self._workers))]
                yield from self._pool.map(self._whole, batch)
                slow = self._file.is_remote

    def _region_walk(self, region: Region) -> RegionWalk:
        return RegionWalk(self._file, self._source, region, self._on_progress)

    def _whole(self, region: Region) -> list[Part]:
        walk = self._region_walk(region)
        walk.run(region.start)
        return walk.parts

    def _is_slow(self, parts: Sequence[Part], began: float) -> bool:
        headers_read = 1 + _counts(parts)[0]
        seconds = time.perf_counter() - began
        return self._workers > 1 and (
            self._file.is_remote or seconds > _SLOW_SECONDS_PER_HEADER * headers_read
        )

    def _segment_bounds(self, position: int) -> list[int]:
        """Returns offsets between which segments of the rest of the archive lie."""
        rest = self._file.size - position
        count = max(1, min(2 * self._workers, rest // _MIN_SEGMENT))
        blocks = np.linspace(position, self._file.size, count + 1) // headers.BLOCK
        return [int(block) * headers.BLOCK for block in blocks]

    def _segment(self, region: Region, begin: int, end: int) -> _Segment | None:
        """Walks from the first header that seems to be between `begin` and `end`.

        Any error means that it was no header after all, or that the archive is damaged; the walk
        from the front will then come past and see which.
        """
        try:
            start = self._find_header(begin, end)
            if start is None:
                return None
            walk = RegionWalk(self._file, self._source, region, lambda members, size: None)
            return _Segment(start, walk.run(start, end), walk.parts)
        except ArchiveError:
            return None

    def _find_header(self, begin: int, end: int) -> int | None:
        for position in range(begin, min(end, begin + _MAX_SCAN), _SCAN_CHUNK):
            chunk = self._file.read(position, min(_SCAN_CHUNK, end - position))
            for at in range(0, len(chunk) - headers.BLOCK + 1, headers.BLOCK):
                if chunk[at + 257 : at + 262] != b"ustar":
                    continue
                try:
                    headers.parse_header(chunk[at : at + headers.BLOCK])
                except headers.HeaderError:
                    continue
                return position + at
        return None


def _members(parts: Iterable[Part]) -> list[Members]:
    return [part for part in parts if isinstance(part, Members)]


def _counts(parts: Iterable[Part]) -> tuple[int, int]:
    members = _members(parts)
    return sum(len(part.sizes) for part in members), sum(int(part.sizes.sum()) for part in members)


def _join(parts: list[Members]) -> Members:
    """Returns the parts as one, each directory listed once."""
    table: dict[str, int] = {}
    directory = [np.zeros(0, np.int32)]
    for part in parts:
        renumbered = np.zeros(len(part.directories), np.int32)
        for used in np.unique(part.directory).tolist():
            renumbered[used] = table.setdefault(part.directories[used], len(table))
        directory.append(renumbered[part.directory])
    return Members(
        tuple(table),
        np.concatenate(directory),
        np.concatenate([part.names for part in parts] or [np.zeros(0, "S1")]),
        np.concatenate([np.zeros(0, np.int64)] + [part.offsets for part in parts]),
        np.concatenate([np.zeros(0, np.int64)] + [part.sizes for part in parts]),
        np.concatenate([np.zeros(0, np.uint32)] + [part.checks for part in parts]),
    )

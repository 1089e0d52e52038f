"""Bounds the memory of fuzzers."""

import contextlib
import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path

_MORE_RESIDENT = 192 << 20
# Address space that is reserved and not used, by threads above all, counts too.
_MORE_ADDRESSES = 4 << 30


@dataclasses.dataclass
class Peak:
    """Most bytes of memory that this process has had."""

    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.after / 1e6:.0f} MB of memory at most, {self.before / 1e6:.0f} MB before"


@contextlib.contextmanager
def bounded_memory() -> Iterator[Peak]:
    """Allows this process only so much more memory than it has had, and measures it.

    Raises:
        MemoryError: Something asked for far more.
        AssertionError: It had more than it should.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MORE_ADDRESSES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    peak = Peak(_peak(), 0)
    try:
        yield peak
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        peak.after = _peak()
    assert peak.after - peak.before < _MORE_RESIDENT, str(peak)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""Limits of storage and memory for processes, by the kernel's control groups: needs root on Linux.

Version 1 (blkio and memory) and version 2 (io and memory) are used, whichever the system has. A
limit holds for reads that reach the device, not for those that memory answers.
"""

import contextlib
import errno
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PREFIX = "imagenet_family_limited_"
_numbers = itertools.count()

Wrap = Callable[[list[str]], list[str]]


class CannotLimit(Exception):
    """Why there can be no limits here."""


@contextlib.contextmanager
def limits(
    folder: Path,
    *,
    reads: int | None = None,
    rate: int | None = None,
    memory: int | None = None,
) -> Iterator[Wrap]:
    """Makes control groups, which are removed afterwards with all processes in them.

    Args:
        folder: On the device that is limited.
        reads: Reads a second from it; None for no limit.
        rate: Bytes a second from it.
        memory: Bytes of memory, the pages of files that are read or written among them.

    Yields:
        A function that gives a command that runs another one within the limits.

    Raises:
        CannotLimit: They cannot be set up.
    """
    wanted: dict[str, dict[str, str]] = {}
    if reads is not None or rate is not None:
        device = block_device(folder)
        wanted["io"] = {}
        if reads is not None:
            wanted["io"]["riops"] = f"{device} {reads}"
        if rate is not None:
            wanted["io"]["rbps"] = f"{device} {rate}"
    if memory is not None:
        wanted["memory"] = {"memory": str(memory)}
    groups: list[Path] = []
    try:
        if wanted:
            if os.geteuid() != 0:
                raise CannotLimit("limits of storage and memory need root: run this with sudo")
            tops = _hierarchies()
            try:
                _make(tops, wanted, groups)
            except OSError as error:
                raise CannotLimit(f"the kernel refuses the limits: {error}") from error
        join = "".join(f"echo $$ > '{group}/cgroup.procs' && " for group in groups)
        yield lambda command: ["sh", "-c", f'{join}exec "$@"', "sh", *command]
    finally:
        for group in groups:
            _remove(group)


def block_device(folder: Path) -> str:
    """Gives the numbers of the disk that a folder is on, such as 254:0.

    Raises:
        CannotLimit: It is on none: in memory, on the network, or on several.
    """
    number = folder.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    if os.major(number) == 0:  # btrfs and others number their volumes themselves
        number = _mounted_device(folder, name)
        name = f"{os.major(number)}:{os.minor(number)}"
    device = Path("/sys/dev/block", name)
    if not device.exists():
        raise CannotLimit(f"{folder} is not on a disk of this machine")
    if (device / "partition").exists():  # limits are those of whole disks
        name = (device.resolve().parent / "dev").read_text().strip()
    return name


def read_ahead_bytes(folder: Path) -> int:
    """Gives how much the system reads ahead from the disk that a folder is on."""
    queue = Path("/sys/dev/block", block_device(folder), "queue")
    return int((queue / "read_ahead_kb").read_text()) << 10


def _mounted_device(folder: Path, name: str) -> int:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[2] == name:
            source = Path(line.partition(" - ")[2].split()[1])
            if source.is_block_device():
                return source.stat().st_rdev
    raise CannotLimit(f"{folder} is in memory or on the network, where no limits can be set")


def _hierarchies() -> dict[str, tuple[Path, int]]:
    """Gives of io and memory where groups can be made, and the version."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, tuple[Path, int]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, after = line.split(), line.partition(" - ")[2].split()
        top, kind = Path(fields[4]), after[0]
        if kind == "cgroup2":
            # At the top, as a group with processes in it cannot have such groups below it.
            for controller in (top / "cgroup.controllers").read_text().split():
                found.setdefault(controller, (top, 2))
        elif kind == "cgroup":
            for controller in set(after[2].split(",")) & {"blkio", "memory"}:
                below = os.path.relpath(own.get(controller, "/"), fields[3])
                base = top if below.startswith("..") else top / below
                found["io" if controller == "blkio" else controller] = (base, 1)
    return found


def _make(
    tops: dict[str, tuple[Path, int]], wanted: dict[str, dict[str, str]], groups: list[Path]
) -> None:
    for controller, values in wanted.items():
        if controller not in tops:
            raise CannotLimit(f"this kernel has no control groups of {controller} here")
        top, version = tops[controller]
        _remove_stale(top)
        if version == 2:
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
        group = top / f"{_PREFIX}{os.getpid()}_{next(_numbers)}"
        group.mkdir()
        groups.append(group)
        for file, text in _settings(values, version):
            # There is none about swap files where there are none.
            with contextlib.suppress(OSError) if "sw" in file else contextlib.nullcontext():
                (group / file).write_text(text)


def _settings(values: dict[str, str], version: int) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if name == "memory":
            if version == 2:
                yield from (("memory.max", value), ("memory.swap.max", "0"))
            else:
                yield "memory.limit_in_bytes", value
                yield "memory.memsw.limit_in_bytes", value
        elif version == 2:
            device, _, number = value.partition(" ")
            yield "io.max", f"{device} {name}={number}"
        else:
            long_name = "read_iops_device" if name == "riops" else "read_bps_device"
            yield f"blkio.throttle.{long_name}", value


def _remove(group: Path) -> None:
    """Ends the processes of a group, all started by us, and removes it."""
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(FileNotFoundError):
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.05)


def _remove_stale(top: Path) -> None:
    """Removes groups without processes of those of us who were killed."""
    for group in top.glob(f"{_PREFIX}*"):
        pid = group.name.removeprefix(_PREFIX).partition("_")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                group.rmdir()

"""The probe of storage: what it measures where the speed is known, and the memory to spare."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import limited_storage
import pytest

from imagenet_family.errors import ArchiveError
from imagenet_family.storage import probe, reads

MB = 1 << 20

# Imports first, so that only the probe is measured.
MEASURE = """
import dataclasses, json, sys, time
from imagenet_family.storage import probe, reads
file = reads.LocalFile(sys.argv[1])
start = time.perf_counter()
found = probe.measure(file)
print(json.dumps({**dataclasses.asdict(found), "seconds": time.perf_counter() - start}))
"""


def random_file(path, size):
    with path.open("wb") as file:
        for start in range(0, size, MB):
            file.write(os.urandom(min(MB, size - start)))
        file.flush()
        os.fsync(file.fileno())
    return path


def forget(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def measure(path):
    with contextlib.closing(reads.open_file(str(path))) as file:
        return probe.measure(file)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = random_file(tmp_path_factory.mktemp("disk") / "archive", 128 * MB)
    try:
        limited_storage.block_device(path.parent)
    except limited_storage.CannotLimit as reason:
        pytest.skip(str(reason))
    return path


def measure_limited(path, **limits):
    """Measures a file that is not in memory within limits."""
    try:
        with limited_storage.limits(path.parent, **limits) as wrap:
            forget(path)
            done = subprocess.run(
                wrap([sys.executable, "-c", MEASURE, str(path)]), capture_output=True, check=True
            )
    except limited_storage.CannotLimit as reason:
        pytest.skip(str(reason))
    return json.loads(done.stdout)


def test_in_memory_it_is_quick():
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        pytest.skip("there is no folder in memory")
    path = folder / f"imagenet_family_probe_{os.getpid()}"
    try:
        random_file(path, 64 * MB)
        seconds, found = [], []
        for _ in range(7):
            start = time.perf_counter()
            found.append(measure(path))
            seconds.append(time.perf_counter() - start)
    finally:
        path.unlink(missing_ok=True)
    assert min(seconds) < 0.02
    best = min(found, key=lambda speed: speed.random_read_seconds)
    assert best.cached == 1 and not best.is_remote
    assert best.lone_read_seconds == best.random_read_seconds < 1e-3
    assert max(speed.bytes_per_second for speed in found) > 500e6


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system cannot tell")
def test_how_much_is_in_memory(on_disk):
    on_disk.read_bytes()
    assert measure(on_disk).cached == 1
    forget(on_disk)
    assert measure(on_disk).cached < 0.1
    forget(on_disk)
    descriptor = os.open(on_disk, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # else more would be read ahead
    os.pread(descriptor, 64 * MB, 0)
    os.close(descriptor)
    assert 0.3 < measure(on_disk).cached < 0.7


def test_what_is_in_memory_is_recognised_where_the_system_does_not_tell(on_disk, monkeypatch):
    monkeypatch.delattr(os, "RWF_NOWAIT")
    on_disk.read_bytes()
    assert max(measure(on_disk).cached for _ in range(5)) == 1
    forget(on_disk)
    assert measure(on_disk).cached < 0.3


def test_a_disk_that_seeks(on_disk):
    found = measure_limited(on_disk, reads=120, rate=190_000_000)
    assert 1 / 300 < found["random_read_seconds"] <= found["lone_read_seconds"] < 1
    assert 30e6 < found["bytes_per_second"] < 400e6
    assert found["cached"] < 0.2
    assert found["seconds"] < 1


def test_a_volume(on_disk):
    found = measure_limited(on_disk, reads=3000, rate=125_000_000)
    assert 50e6 < found["bytes_per_second"] < 300e6  # the burst is 12.5 MB at the disk's own speed
    assert found["seconds"] < 1


def test_limits_are_told_from_none(on_disk):
    limited = measure_limited(on_disk, reads=60, rate=20_000_000)
    own = []
    for _ in range(5):  # others may use the disk, too
        forget(on_disk)
        own.append(measure(on_disk))
    assert min(speed.random_read_seconds for speed in own) < limited["random_read_seconds"] / 3
    assert max(speed.bytes_per_second for speed in own) > limited["bytes_per_second"]
    assert limited["bytes_per_second"] < 60e6


@pytest.mark.parametrize("nowait", [True, False])
@pytest.mark.parametrize("size", [1, 4096, 5000, 300_000, 3 * MB + 1])
def test_small_files(size, nowait, tmp_path, monkeypatch):
    if not nowait:
        monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    path = random_file(tmp_path / "archive", size)
    for _ in range(2):
        forget(path)
        found = measure(path)
        assert found.random_read_seconds > 0 and found.bytes_per_second > 0
        assert 0 <= found.cached <= 1


def test_an_empty_file_has_no_speed(tmp_path):
    (tmp_path / "archive").touch()
    assert measure(tmp_path / "archive") is None


def test_a_file_that_became_shorter_is_told(tmp_path, caplog):
    path = random_file(tmp_path / "archive", 8 * MB)
    with contextlib.closing(reads.open_file(str(path))) as file:
        path.write_bytes(b"short")
        assert probe.measure(file) is None
    assert str(path) in caplog.text


def test_a_file_that_is_gone_is_told(tmp_path, caplog):
    path = random_file(tmp_path / "archive", MB)
    with contextlib.closing(reads.open_file(str(path))) as file:
        path.unlink()
        assert probe.measure(file) is None
    assert str(path) in caplog.text


class Store:
    """A store that takes its time for every request."""

    is_remote = True

    def __init__(self, content, seconds):
        fsspec.filesystem("memory").pipe_file("/probe/archive", content)
        self._file = reads.RemoteFile("memory://probe/archive")
        self.path, self.size, self._seconds = self._file.path, self._file.size, seconds
        self.asked = []

    def read(self, offset, length):
        self.asked.append((offset, length))
        time.sleep(self._seconds)
        return self._file.read(offset, length)


def test_a_store():
    store = Store(bytes(20 * MB), 0.06)
    start = time.perf_counter()
    found = probe.measure(store)
    assert time.perf_counter() - start < 2
    assert found.is_remote and found.cached == 0
    assert 0.06 <= found.lone_read_seconds < 0.2
    assert found.random_read_seconds < 0.6 * found.lone_read_seconds  # several are under way
    assert 10e6 < found.bytes_per_second < 140e6  # 8 MiB in 60 ms or more
    assert len(store.asked) < 30 and sum(length for _, length in store.asked) < 10 * MB
    assert (0, MB) in store.asked


def test_a_slow_store_is_asked_little():
    store = Store(bytes(3 * MB), 0.31)
    found = probe.measure(store)
    assert found.lone_read_seconds >= 0.3
    assert len(store.asked) == 1 + 3


def test_a_store_that_fails_is_told(caplog):
    class Failing(Store):
        def read(self, offset, length):
            raise ArchiveError(f"{self.path}: no connection")

    assert probe.measure(Failing(b"content", 0)) is None
    assert "no connection" in caplog.text


# Memory to spare


def machine(root, available_mb, cgroup, mountinfo, files):
    """Writes what the kernel would show."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal:       99999999 kB\nMemFree: 1 kB\nMemAvailable:   {available_mb << 10} kB\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text(mountinfo)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


V2 = "30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def v2_group(limit, current_mb, inactive_mb):
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{current_mb * MB}\n",
        "memory.stat": f"anon 5\ninactive_file {inactive_mb * MB}\nactive_file 7\n",
    }


def inside(folder, files):
    return {f"{folder}/{name}": text for name, text in files.items()}


def share_of(megabytes):
    """The range in which a sensible share of so much is."""
    return pytest.approx(0.75 * megabytes * MB, rel=0.15)


def test_without_limits_a_share_of_what_is_available(tmp_path):
    files = inside("sys/fs/cgroup/user.slice", v2_group("max", 4000, 100))
    machine(tmp_path, 1000, "0::/user.slice\n", V2, files)
    assert probe.memory_to_spare(tmp_path) == share_of(1000)


def test_v2_limit_of_the_group_or_of_one_above(tmp_path):
    inner = inside("sys/fs/cgroup/job/step", v2_group(900 * MB, 500, 300))
    machine(tmp_path / "a", 9000, "0::/job/step\n", V2, inner)
    assert probe.memory_to_spare(tmp_path / "a") == share_of(900 - (500 - 300))
    outer = inside("sys/fs/cgroup/job", v2_group(600 * MB, 200, 0))
    machine(tmp_path / "b", 9000, "0::/job/step\n", V2, {**inner, **outer})
    assert probe.memory_to_spare(tmp_path / "b") == share_of(400)


def test_v2_memory_high_is_a_limit_too(tmp_path):
    files = {**v2_group("max", 100, 0), "memory.high": f"{300 * MB}\n"}
    machine(tmp_path, 9000, "0::/job\n", V2, inside("sys/fs/cgroup/job", files))
    assert probe.memory_to_spare(tmp_path) == share_of(200)


@pytest.mark.parametrize(
    ("mounted", "own", "folder"),
    [
        ("/", "/docker/abc", "sys/fs/cgroup/memory/docker/abc"),
        ("/docker/abc", "/docker/abc", "sys/fs/cgroup/memory"),  # as a container sees itself
        ("/docker/abc", "/docker/abc/step", "sys/fs/cgroup/memory/step"),
        ("/", "/../other", "sys/fs/cgroup/memory"),
    ],
)
def test_v1_limit(mounted, own, folder, tmp_path):
    files = {
        "memory.limit_in_bytes": f"{800 * MB}\n",
        "memory.usage_in_bytes": f"{500 * MB}\n",
        "memory.stat": f"inactive_file 1\ntotal_inactive_file {200 * MB}\n",
    }
    cgroup = f"9:cpu,cpuacct:/\n4:memory:{own}\n0::/elsewhere\n"
    mount = V1.replace(" / /sys", f" {mounted} /sys")
    machine(tmp_path, 9000, cgroup, V2 + mount, inside(folder, files))
    assert probe.memory_to_spare(tmp_path) == share_of(500)


def test_v1_without_a_limit(tmp_path):
    files = {
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.usage_in_bytes": "5\n",
        "memory.stat": "",
    }
    machine(tmp_path, 700, "4:memory:/job\n", V1, inside("sys/fs/cgroup/memory/job", files))
    assert probe.memory_to_spare(tmp_path) == share_of(700)


def test_nothing_is_to_spare_in_a_full_group(tmp_path):
    files = inside("sys/fs/cgroup/job", v2_group(100 * MB, 120, 0))
    machine(tmp_path, 9000, "0::/job\n", V2, files)
    assert probe.memory_to_spare(tmp_path) == 0


def test_folder_with_a_space(tmp_path):
    files = inside("sys/fs/c group/job", v2_group(400 * MB, 0, 0))
    mount = V2.replace("/sys/fs/cgroup", r"/sys/fs/c\040group")
    machine(tmp_path, 9000, "0::/job\n", mount, files)
    assert probe.memory_to_spare(tmp_path) == share_of(400)


def test_damaged_numbers_are_no_limits(tmp_path):
    files = inside("sys/fs/cgroup/job", {**v2_group("plenty", 1, 0), "memory.high": ""})
    machine(tmp_path, 500, "0::/job\n", V2, files)
    assert probe.memory_to_spare(tmp_path) == share_of(500)


def test_a_system_that_does_not_tell(tmp_path):
    assert probe.memory_to_spare(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 5 kB\n")
    assert probe.memory_to_spare(tmp_path) is None


def test_within_a_real_limit(tmp_path):
    program = "from imagenet_family.storage import probe; print(probe.memory_to_spare())"
    try:
        with limited_storage.limits(tmp_path, memory=300 * MB) as wrap:
            command = wrap([sys.executable, "-c", program])
            done = subprocess.run(command, capture_output=True, check=True)
    except limited_storage.CannotLimit as reason:
        pytest.skip(str(reason))
    assert 50 * MB < int(done.stdout) < 300 * MB

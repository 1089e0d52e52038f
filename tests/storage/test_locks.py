"""Locks: they are waited for, end with their process, and are done without where there are none."""

import concurrent.futures
import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from imagenet_family.storage.locks import file_lock


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks(code, tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "below" / "lock"
    with file_lock(path, "building") as first, file_lock(path, "building") as second:
        assert not first and not second


def test_it_ends_with_the_process(tmp_path):
    holder = (
        "import os, sys; from imagenet_family.storage.locks import file_lock\n"
        "with file_lock(sys.argv[1], 'building'): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", holder, tmp_path / "lock"], check=False)
    assert done.returncode == -9
    with file_lock(tmp_path / "lock", "building") as held:
        assert held


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has such a folder")
def test_a_folder_that_cannot_hold_it_is_not_tried_for_ever():
    with pytest.raises(FileNotFoundError), file_lock("/proc/.x.lock", "building"):
        pass


def test_other_errors_are_not_taken_for_that(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), file_lock(tmp_path / "file" / "lock", "building"):
        pass


def test_the_second_one_waits(tmp_path, caplog):
    # The lock is on the open file, so a thread can stand for another process.
    def second():
        with file_lock(tmp_path / "lock", "building it"):
            return "done"

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with file_lock(tmp_path / "lock", "building it"):
            waiting = pool.submit(second)
            with pytest.raises(concurrent.futures.TimeoutError):
                waiting.result(timeout=0.5)
        assert waiting.result(timeout=30) == "done"
    assert "Another process is building it; waiting for it." in caplog.text


def test_an_error_inside_ends_it(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), file_lock(tmp_path / "lock", "building"):
            raise KeyError

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagenet_family.build import processes
from imagenet_family.errors import BuildError, UsageError

LARGE = processes.SERIAL_BYTES


def who(number):
    return number, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise BuildError("three")
    return number


def end_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_little_work_is_done_in_this_process():
    with processes.WorkerPool(who, 2) as pool:
        pool.expect(LARGE - 1, 9)
        results = list(pool(range(9)))
    assert results == [(number, (number, os.getpid())) for number in range(9)]


def test_one_task_or_one_worker_needs_no_processes():
    for workers, tasks in ((1, 9), (2, 1)):
        with processes.WorkerPool(who, workers) as pool:
            pool.expect(LARGE, tasks)
            assert {pid for _, (_, pid) in pool(range(tasks))} == {os.getpid()}


@pytest.mark.parametrize("alone", [False, True])
def test_processes_do_much_work(alone):
    """In an interpreter of its own, as the one of the tests has threads."""
    done = subprocess.run(
        [sys.executable, "-c", _MUCH_WORK.format(alone=alone)],
        cwd=Path(__file__).parent,
        check=True,
        timeout=120,
        stderr=subprocess.PIPE,
    )
    assert not done.stderr, "warnings are for nobody"


_MUCH_WORK = """
import os
from pathlib import Path
from test_processes import who
from imagenet_family.build import processes
LARGE = processes.SERIAL_BYTES
with processes.WorkerPool(who, 2) as pool:
    pool.expect(LARGE, alone={alone})
    pool.expect(LARGE, 50)  # starts no others
    for _ in range(2):
        results = dict(pool(range(50)))
        assert {{number: found for number, (found, _) in results.items()}} == {{
            number: number for number in range(50)
        }}
        pids = {{pid for _, pid in results.values()}}
        assert os.getpid() not in pids and 1 <= len(pids) <= 2
assert not any(Path(f"/proc/{{pid}}").exists() for pid in pids)
"""


def test_an_error_ends_the_work():
    with pytest.raises(BuildError, match="three"), processes.WorkerPool(fail_at_three, 2) as pool:
        pool.expect(LARGE)
        list(pool(range(1000)))


def test_a_killed_process_is_told():
    with (
        pytest.raises(BuildError, match="killed from outside"),
        processes.WorkerPool(end_at_three, 2) as pool,
    ):
        pool.expect(LARGE)
        list(pool(range(1000)))


def test_number_of_workers(monkeypatch):
    monkeypatch.setenv(processes.WORKERS_VARIABLE, "3")
    assert processes.WorkerPool(who).workers == 3
    assert processes.WorkerPool(who, 5).workers == 5
    for wrong in ("0", "-1", "many", ""):
        monkeypatch.setenv(processes.WORKERS_VARIABLE, wrong)
        with pytest.raises(UsageError, match=processes.WORKERS_VARIABLE):
            processes.default_workers()


_INTERRUPTED = """
import time
from imagenet_family.build import processes, staging
with processes.WorkerPool(staging.ensure_shard, 2) as pool:
    pool.expect(processes.SERIAL_BYTES, alone={alone})
    print("started", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("delay", [0, 0.1, 0.3])
def test_ctrl_c_reaches_this_process_alone(delay, alone):
    """Processes that are still starting print no traceback of theirs."""
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED.format(alone=alone)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert messages.count("Traceback") == messages.count("KeyboardInterrupt") == 1, messages


_ALONE = """
import os, subprocess, sys
from test_processes import who
from imagenet_family.build import processes
with processes.WorkerPool(who, 2) as pool:
    pool.expect(processes.SERIAL_BYTES)
    pool.expect(processes.SERIAL_BYTES, 50)  # is not tried again
    assert dict(pool(range(5))) == {number: (number, os.getpid()) for number in range(5)}
print("done")
"""


def _run_alone(code, *before):
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "done\n", done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Worker processes cannot be started here") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("options", ["size=4k", "ro"])
def test_where_there_is_no_shared_memory_one_process_works_alone(options):
    """In a mount namespace of its own, so that nobody else's /dev/shm changes."""
    script = (
        f"mount -t tmpfs -o {options} none /dev/shm; "
        "(head -c 4096 /dev/zero > /dev/shm/full) 2> /dev/null; "
        'exec "$@"'
    )
    said = _run_alone(_ALONE, "unshare", "-m", "bash", "-c", script, "bash")
    assert "/dev/shm" in said


def test_a_daemonic_process_works_alone():
    code = f"""
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=exec, args=({_ALONE!r}, {{}}))
process.daemon = True
process.start()
process.join()
"""
    assert "daemonic" in _run_alone(code)


def test_a_cpu_quota_counts(monkeypatch):
    monkeypatch.delenv(processes.WORKERS_VARIABLE, raising=False)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # stands for what loky reads of a cgroup
    assert processes.default_workers() == 1

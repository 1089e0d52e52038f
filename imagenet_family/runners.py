"""Where shards are written: this process, or a pool of processes on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from imagenet_family.errors import BuildError, UsageError

WORKERS_VARIABLE = "IMAGENET_FAMILY_WORKERS"

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers() -> int:
    """Number of worker processes: $IMAGENET_FAMILY_WORKERS, or one for each usable core.

    Raises:
        UsageError: The variable holds no positive number.
    """
    value = os.environ.get(WORKERS_VARIABLE)
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise UsageError(f"${WORKERS_VARIABLE} is {value!r}; it must be a positive number.")
    return int(value)


def run(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Does independent pieces of work and gives each result when it is there.

    Args:
        work: A function of a module (workers import it by name).
        tasks: Arguments for it, each picklable. They are taken one by one as workers become
            free, so a long list need not be in memory.
        workers: Number of processes; 1 means this one.

    Yields:
        `(task, result)` in the order of completion.

    Raises:
        BuildError: A worker process died.
        Exception: Whatever `work` raised first; unfinished work is abandoned.
    """
    if workers == 1:
        for task in tasks:
            yield task, work(task)
        return
    # loky: unlike multiprocessing's spawn it does not import the user's script again, and unlike
    # fork it is safe when TensorFlow's threads are already running.
    import loky
    from loky.process_executor import TerminatedWorkerError

    executor = loky.ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),))
    pending: dict = {}
    try:
        tasks = iter(tasks)
        exhausted = False
        while pending or not exhausted:
            # One task waits for each worker, so that none is idle between two shards.
            while not exhausted and len(pending) < 2 * workers:
                try:
                    task = next(tasks)
                except StopIteration:
                    exhausted = True
                else:
                    pending[executor.submit(work, task)] = task
            done, _ = loky.wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                yield pending.pop(future), future.result()
    except TerminatedWorkerError as error:
        raise BuildError(
            "A worker process was killed from outside (often for want of memory). Run the same "
            "command again; finished shards are kept. Fewer workers need less memory."
        ) from error
    finally:
        # After success the pool is idle; after an error or Ctrl-C what is in flight is useless.
        executor.shutdown(wait=True, kill_workers=bool(pending))


def _start_worker(parent: int) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    # A worker whose parent was killed must not go on writing beside the next build.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

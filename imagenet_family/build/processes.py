"""Where shards are written: this process, or a pool of processes on this machine."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from absl import logging

from imagenet_family.errors import BuildError, UsageError

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    import loky

# Below this, starting processes takes longer than they save.
SERIAL_BYTES = 128 << 20

_CAN_FORK = sys.platform == "linux"  # elsewhere libraries of the system may not survive it

WORKERS_VARIABLE = "IMAGENET_FAMILY_WORKERS"

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers() -> int:
    """Number of worker processes: $IMAGENET_FAMILY_WORKERS, or one for each usable core.

    Usable are those that this process may run on, as far as a container's CPU quota lets it.

    Raises:
        UsageError: The variable holds no positive number.
    """
    value = os.environ.get(WORKERS_VARIABLE)
    if value is None:
        import loky

        cores: int = loky.cpu_count()
        return cores
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise UsageError(f"${WORKERS_VARIABLE} is {value!r}; it must be a positive number.")
    return int(value)


class WorkerPool(Generic[Task, Result]):
    """Processes of this machine that do independent pieces of one kind of work.

    It starts them when it is told of enough work; until then, work is done in this process.
    """

    def __init__(self, work: Callable[[Task], Result], workers: int | None = None) -> None:
        """Starts nothing yet.

        Args:
            work: A function of a module (workers import it by name).
            workers: Number of processes; see `default_workers`.
        """
        self.workers = workers or default_workers()
        self._work = work
        self._executor: loky.ProcessPoolExecutor | None = None

    def expect(self, num_bytes: int, num_tasks: int | None = None, *, alone: bool = False) -> None:
        """Starts the processes, if that pays off; they get ready while the caller goes on.

        Args:
            num_bytes: Bytes that will be read or written.
            num_tasks: Number of tasks, if known.
            alone: Whether the caller is sure that this process has no other threads yet, so that
                it may be forked where that is usual: each process is then spared its imports.
        """
        workers = min(self.workers, num_tasks or self.workers)
        if self._executor is not None or workers == 1 or num_bytes < SERIAL_BYTES:
            return
        # loky: unlike multiprocessing's spawn it does not import the user's script again, and
        # unlike fork it is safe when TensorFlow's threads are already running.
        import loky

        fork = alone and _CAN_FORK
        try:
            # Asked first: loky lets an assertion fail, half-way through its start.
            if multiprocessing.current_process().daemon:
                raise OSError("a daemonic process may have no processes of its own")
            if not fork:
                resource_tracker.ensure_running()  # whose start would let signals through again
            self._executor = loky.ProcessPoolExecutor(
                workers,
                context=_fork_context() if fork else None,
                initializer=_start_worker,
                initargs=(os.getpid(), self._work),
            )
            with _interrupts_held():
                self._executor.submit(os.getpid)  # the first task starts all of them
        except (OSError, ImportError) as error:  # an ImportError where there are no semaphores
            self.close()
            self.workers = 1
            logging.warning(
                "Worker processes cannot be started here (%s), so that this process does all the "
                "work alone. They need room in /dev/shm and the right to have child processes.",
                error,
            )

    def __call__(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
        """Does all tasks.

        Args:
            tasks: Arguments for the work, each picklable. They are taken one by one as workers
                become free, so a long list need not be in memory.

        Yields:
            `(task, result)` in the order of completion.

        Raises:
            BuildError: A worker process died.
            Exception: Whatever the work raised first; unfinished work is abandoned.
        """
        if self._executor is None:
            for task in tasks:
                yield task, self._work(task)
            return
        from loky.process_executor import TerminatedWorkerError

        tasks = iter(tasks)
        pending: dict[Future[Result], Task] = {}
        try:
            while True:
                # One task waits for each worker, so that none is idle between two.
                for task in itertools.islice(tasks, 2 * self.workers - len(pending)):
                    pending[self._executor.submit(self._work, task)] = task
                if not pending:
                    break
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        except TerminatedWorkerError as error:
            raise BuildError(
                "A worker process was killed from outside (often for want of memory). Run the same "
                "command again; finished shards are kept. Fewer workers need less memory."
            ) from error

    def close(self) -> None:
        """Ends the processes; after an error or Ctrl-C, what they still do is of no use."""
        if self._executor is not None:
            # Idle ones, too, are killed: it is the quickest way, and they hold nothing.
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fork_context() -> BaseContext:
    import loky

    with warnings.catch_warnings(action="ignore"):  # of what can go wrong with threads
        context: BaseContext = loky.backend.get_context("fork")
        return context


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keeps Ctrl-C from processes that are started, for their whole life.

    It reaches the whole process group, and the parent alone decides what it means.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(parent: int, work: Callable[..., object]) -> None:
    # `work` is only passed so that its module is imported here, before there is a task.
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    # A worker whose parent was killed must not go on writing beside the next build.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

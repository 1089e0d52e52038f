"""Where shards are written: the workers of an Apache Beam pipeline, on any runner.

A work item is one shard, and nothing of it but a name and a digest travels through the pipeline.
The rest waits in files of the shard, on storage that launcher and workers share: the task with
the shard's part of the index (some 100 KB, so that the whole index is sent once, however many
workers there are), the shard itself, the note that says what it holds, and the error if there was
one. A worker removes the task when the shard stands there whole; so the launcher sees how far the
build is, whatever the runner tells. Work items may be done twice, at once or one after the other:
a shard is written under another name first, its bytes are always the same, and one that stands
there whole is only checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner
from etils import epath

from imagenet_family import errors
from imagenet_family.build import staging
from imagenet_family.build.staging import ShardTask
from imagenet_family.errors import BuildError, ImagenetFamilyError, UsageError
from imagenet_family.examples import codec
from imagenet_family.examples.table import Examples
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage import files
from imagenet_family.storage.arrays import ArraysError
from imagenet_family.storage.paths import is_local, join, parent_of

_TASK_SUFFIX = ".task"
_ERROR_SUFFIX = ".error"
_MAX_MESSAGE = 1 << 12
# Requests for small files that are under way at once: an object store takes tens of milliseconds
# for each, whatever its size.
_REQUESTS = 32
_POLL_SECONDS = 5.0
# Seconds without a finished shard, once one was begun, after which the workers are taken for dead,
# and a second more for each megabyte of the largest shard: Beam's own local runners wait for a
# killed worker for ever.
_PATIENCE = 600.0
# Seconds that a pipeline may take to end after its last shard, for the same reason.
_ENDS_WITHIN = 60.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """Writes shards on the workers of a Beam pipeline; an `shard_writing.Runner`.

    Workers need this package, and the archives and the dataset's folder under the same paths as
    the launcher.

    Attributes:
        runner: As for `beam.Pipeline`: a `PipelineRunner`, the name of one, or None for the one
            that the options name.
        options: As for `beam.Pipeline`.
    """

    runner: PipelineRunner | str | None = None
    options: PipelineOptions | None = None

    def expect(self, num_bytes: int, num_tasks: int) -> None:
        """Does nothing: the workers are Beam's."""

    def __call__(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, ShardResult]]:
        """Runs one pipeline that writes all shards.

        Yields:
            `(task, result)` in the order of completion.

        Raises:
            UsageError: There is no such runner, or its options are wrong.
            BuildError: The pipeline failed; whole shards are kept.
            ImagenetFamilyError: What a worker raised, of the class and with the message of there.
        """
        pending = {_task_path(task): task for task in tasks}
        shard_folders = {parent_of(_absolute(task.path)) for task in pending.values()}
        folders = {staging.notes_folder(folder) for folder in shard_folders}
        for path in _listed(folders, _ERROR_SUFFIX):
            files.remove(path)
        job = _Job(self._pipeline(_in_threads(save_task, pending.values())))
        patience = _PATIENCE + max(map(_num_bytes, pending.values())) / 1e6
        last = None
        try:
            finished = False
            while not finished:
                finished = job.wait(_POLL_SECONDS)
                left = _listed(folders, _TASK_SUFFIX)
                done = [pending.pop(path) for path in pending.keys() - left]
                yield from zip(done, _in_threads(_result, done), strict=True)
                if done or (last is None and _listed(shard_folders, files.TEMPORARY_SUFFIX)):
                    last = time.monotonic()
                limit = patience if pending else _ENDS_WITHIN
                if last is not None and time.monotonic() - last > limit:
                    break
        finally:
            if not finished:
                job.cancel()
        if pending:
            raise _reported(folders) or job.failure(len(pending))

    def _pipeline(self, items: list[tuple[str, str]]) -> beam.Pipeline:
        said = io.StringIO()
        try:
            pipeline = beam.Pipeline(runner=self.runner, options=self.options)
            with contextlib.redirect_stderr(said):
                pipeline.options.get_all_options()
        except SystemExit as error:  # argparse, having told how to use each of 200 options
            reason = said.getvalue().strip().rpartition("error: ")[2]
            raise UsageError(f"Beam cannot run with these options: {reason}.") from error
        except Exception as error:  # a name that is none, a package that is missing, …
            raise UsageError(f"Beam cannot run with these options: {error}") from error
        # Reshuffle keeps runners from fusing the list of shards with their writing, which would
        # put all of them on one worker.
        shards = pipeline | "Shards" >> beam.Create(items) | "Spread" >> beam.Reshuffle()
        _ = shards | "Write" >> beam.Map(write_saved_task)
        return pipeline


class _Job:
    """A pipeline that runs in a thread of its own, as some runners return only when it is done."""

    def __init__(self, pipeline: beam.Pipeline) -> None:
        self._pipeline = pipeline
        self._running: PipelineResult | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._running = self._pipeline.run()
            self._running.wait_until_finish()
        except Exception as error:  # runners raise what they like, often a text with a traceback
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Waits for the end, at most so long; tells whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Asks the runner to stop, if it can be asked."""
        if self._running is not None:
            with contextlib.suppress(Exception):
                self._running.cancel()

    def failure(self, missing: int) -> BuildError:
        """Says why shards are missing."""
        if self._error is not None:
            reason = f"it failed: {_shortened(str(self._error))}\n"
        elif self._thread.is_alive():
            reason = "nothing was finished for a long time. Have its workers died? "
        else:
            reason = (
                "it ended without an error. Beam workers need the folder of the dataset under the "
                "same path as the launcher: use a shared file system or an object store. "
            )
        return BuildError(
            f"The Beam pipeline has left shards unwritten: {missing}; {reason}Run the same command "
            "again; finished shards are kept."
        )


def save_task(task: ShardTask) -> tuple[str, str]:
    """Saves a task with the notes of its shard, for a worker on another machine.

    Returns:
        The path of the file and the digest of its content.

    Raises:
        BuildError: The file cannot be written.
    """
    note = {"path": _absolute(task.path), "file_format": task.file_format}
    pieces, digest = codec.encode(_examples(task), note)
    file = epath.Path(_task_path(task))
    try:
        file.write_bytes(b"".join(pieces))
    except OSError as error:
        raise files.write_error(file, error) from error
    return os.fspath(file), digest


def load_task(path: str, digest: str) -> ShardTask:
    """Loads what `save_task` saved.

    Raises:
        BuildError: The file is missing, damaged or another one.
    """
    try:
        content = epath.Path(path).read_bytes()
    except OSError as error:
        raise BuildError(
            f"{path}: a shard's plan cannot be read: {error}. Beam workers need the folder of the "
            "dataset under the same path as the launcher: use a shared file system or an object "
            "store for data_dir."
        ) from error
    try:
        found = codec.decode(content, digest)
    except ArraysError as error:
        raise BuildError(
            f"{path}: expected a shard's plan of digest {digest}, found {len(content)} bytes: "
            f"{error}. Run the same command again; it is saved anew."
        ) from error
    return ShardTask(found.table, found.note["path"], found.note["file_format"])


def write_saved_task(item: tuple[str, str]) -> None:
    """Does one work item: loads the task, writes its shard and the note, removes the task.

    Raises:
        ImagenetFamilyError: See `staging.ensure_shard`; it is also noted for the launcher, as
            not every runner brings a worker's exception back to the launcher.
    """
    path, digest = item
    shard = staging.shard_of(path, _TASK_SUFFIX)
    try:
        try:
            task = load_task(path, digest)
        except BuildError:
            if not files.exists(path) and staging.noted_result(shard) is not None:
                return  # the item was done before, and the runner did not learn of it
            raise
        staging.ensure_shard(task)
        files.remove(path)
    except ImagenetFamilyError as error:
        report = json.dumps({"error": type(error).__name__, "message": str(error)})
        # On a full disk it may not be possible; the launcher still has the runner's own words.
        with contextlib.suppress(OSError, BuildError):
            files.write_bytes(staging.note_path(shard, _ERROR_SUFFIX), report.encode())
        raise


def _reported(folders: Iterable[str]) -> ImagenetFamilyError | None:
    """Gives an error that a worker has left."""
    for path in sorted(_listed(folders, _ERROR_SUFFIX)):
        try:
            report = json.loads(files.read_bytes(path))
            error_cls = getattr(errors, report["error"])
            message = str(report["message"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        if isinstance(error_cls, type) and issubclass(error_cls, ImagenetFamilyError):
            return error_cls(message)
    return None


def _listed(folders: Iterable[str], suffix: str) -> set[str]:
    return {
        join(folder, name)
        for folder in folders
        for name in files.listing(folder)
        if name.endswith(suffix)
    }


def _result(task: ShardTask) -> ShardResult:
    result = staging.noted_result(task.path)
    if result is None:
        raise BuildError(
            f"{task.path}: expected a finished shard, found no note of what it holds. Does another "
            "program write into that folder? Run the same command again."
        )
    return result


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(work, items))


def _num_bytes(task: ShardTask) -> int:
    return int(_examples(task).sizes.sum())


def _examples(task: ShardTask) -> Examples:
    assert isinstance(task.examples, Examples)  # only exports have others, and they use no Beam
    return task.examples


def _task_path(task: ShardTask) -> str:
    return staging.note_path(_absolute(task.path), _TASK_SUFFIX)


def _absolute(path: str) -> str:
    # Workers may have another current folder.
    return os.fspath(Path(path).absolute()) if is_local(path) else path


def _shortened(text: str) -> str:
    # A remote traceback's last lines say what happened.
    return text if len(text) <= _MAX_MESSAGE else f"…{text[-_MAX_MESSAGE:]}"

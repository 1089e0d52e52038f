"""Where shards are written: the workers of an Apache Beam pipeline, on any runner.

A work item is one shard, and nothing of it but a name and a digest travels through the pipeline.
The rest waits in files beside the shard, on storage that launcher and workers share: its part of
the index (some 100 KB, so that the whole index is sent once, however many workers there are), the
shard itself, the note that says what it holds, and the error if there was one. Work items may be
done twice, at once or one after the other: a shard is written under another name first, its bytes
are always the same, and one that stands there whole is only checked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import PipelineRunner
from etils import epath

from imagenet_family import errors, staging
from imagenet_family.archives import Fingerprint
from imagenet_family.errors import BuildError, ImagenetFamilyError, UsageError
from imagenet_family.examples import Column, Examples, Ragged
from imagenet_family.staging import ShardTask
from imagenet_family.writers import ShardResult, is_local, write_error

_TASK_SUFFIX = ".task"
_ERROR_SUFFIX = ".error"
_MAX_MESSAGE = 1 << 12
# Requests for small files that are under way at once: an object store takes tens of milliseconds
# for each, whatever its size.
_REQUESTS = 32

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """Writes shards on the workers of a Beam pipeline; an `engine.Runner`.

    Workers need this package, and the archives and the dataset's folder under the same paths as
    the launcher.

    Attributes:
        runner: As for `beam.Pipeline`: a `PipelineRunner`, the name of one, or None for the one
            that the options name.
        options: As for `beam.Pipeline`.
    """

    runner: PipelineRunner | str | None = None
    options: PipelineOptions | None = None

    def __call__(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, ShardResult]]:
        """Runs one pipeline that writes all shards.

        Yields:
            `(task, result)`, in the order of `tasks`, when all of them are done.

        Raises:
            UsageError: There is no such runner, or its options are wrong.
            BuildError: The pipeline failed; whole shards are kept.
            ImagenetFamilyError: What a worker raised, of the class and with the message of there.
        """
        tasks = list(tasks)
        folders = {epath.Path(task.path).parent for task in tasks}
        for path in _errors(folders):
            path.unlink(missing_ok=True)
        items = _in_threads(save_task, tasks)
        try:
            pipeline = beam.Pipeline(runner=self.runner, options=self.options)
        except (ValueError, TypeError) as error:
            raise UsageError(f"Beam cannot run with these options: {error}") from error
        # Reshuffle keeps runners from fusing the list of shards with their writing, which would
        # put all of them on one worker.
        shards = pipeline | "Shards" >> beam.Create(items) | "Spread" >> beam.Reshuffle()
        _ = shards | "Write" >> beam.Map(write_saved_task)
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:  # runners raise what they like, often a text about a traceback
            raise _reported(folders) or BuildError(
                f"The Beam pipeline failed: {_shortened(str(error))}\nRun the same command again; "
                "finished shards are kept."
            ) from error
        yield from zip(tasks, _in_threads(_result, tasks), strict=True)


def save_task(task: ShardTask) -> tuple[str, str]:
    """Saves a task beside its shard, for a worker on another machine.

    Returns:
        The path of the file and the digest of its content.

    Raises:
        BuildError: The file cannot be written.
    """
    path = _absolute(task.path)
    examples = task.examples
    header = {
        "path": path,
        "file_format": task.file_format,
        "archive": examples.path,
        "source": examples.source,
        "fingerprint": dataclasses.asdict(examples.fingerprint),
        "columns": list(examples.columns),
    }
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "offsets": examples.offsets,
        "sizes": examples.sizes,
        "checks": examples.checks,
    }
    for i, column in enumerate(examples.columns.values()):
        if isinstance(column, Ragged):
            arrays[f"values{i}"], arrays[f"ends{i}"] = column.values, column.ends
        else:
            arrays[f"column{i}"] = column
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    file = epath.Path(path + _TASK_SUFFIX)
    try:
        file.write_bytes(content)
    except OSError as error:
        raise write_error(file, error) from error
    return os.fspath(file), _digest(content)


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
    if _digest(content) != digest:
        raise BuildError(
            f"{path}: expected a shard's plan of digest {digest}, found {len(content)} bytes of "
            f"digest {_digest(content)}. Run the same command again; it is saved anew."
        )
    # The digest came with the work item, so this is what the launcher wrote.
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        columns: dict[str, Column] = {
            name: arrays[f"column{i}"]
            if f"column{i}" in arrays
            else Ragged(arrays[f"values{i}"], arrays[f"ends{i}"])
            for i, name in enumerate(header["columns"])
        }
        examples = Examples(
            path=header["archive"],
            source=header["source"],
            fingerprint=Fingerprint(**header["fingerprint"]),
            offsets=arrays["offsets"],
            sizes=arrays["sizes"],
            checks=arrays["checks"],
            columns=columns,
        )
    return ShardTask(examples, header["path"], header["file_format"])


def write_saved_task(item: tuple[str, str]) -> None:
    """Does one work item: loads the task, writes its shard and the note beside it.

    Raises:
        ImagenetFamilyError: See `staging.ensure_shard`; it is also written beside the shard, as
            not every runner brings a worker's exception back to the launcher.
    """
    path, digest = item
    try:
        staging.ensure_shard(load_task(path, digest))
    except ImagenetFamilyError as error:
        report = json.dumps({"error": type(error).__name__, "message": str(error)})
        # On a full disk it may not be possible; the launcher still has the runner's own words.
        with contextlib.suppress(OSError):
            epath.Path(path.removesuffix(_TASK_SUFFIX) + _ERROR_SUFFIX).write_text(report)
        raise


def _reported(folders: Iterable[epath.Path]) -> ImagenetFamilyError | None:
    """Gives an error that a worker has left."""
    for path in sorted(_errors(folders)):
        try:
            report = json.loads(path.read_text())
            error_cls = getattr(errors, report["error"])
            message = str(report["message"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
        if isinstance(error_cls, type) and issubclass(error_cls, ImagenetFamilyError):
            return error_cls(message)
    return None


def _errors(folders: Iterable[epath.Path]) -> list[epath.Path]:
    return [
        path for folder in folders for path in folder.iterdir() if path.name.endswith(_ERROR_SUFFIX)
    ]


def _result(task: ShardTask) -> ShardResult:
    result = staging.noted_result(task.path)
    if result is None:
        raise BuildError(
            f"The Beam pipeline is done, but {task.path} was not written. Beam workers need the "
            "folder of the dataset under the same path as the launcher: use a shared file system "
            "or an object store for data_dir."
        )
    return result


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(work, items))


def _absolute(path: str) -> str:
    # Workers may have another current folder.
    return os.fspath(Path(path).absolute()) if is_local(path) else path


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _shortened(text: str) -> str:
    # A remote traceback's last lines say what happened.
    return text if len(text) <= _MAX_MESSAGE else f"…{text[-_MAX_MESSAGE:]}"

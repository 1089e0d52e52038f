"""Where the shards of an unfinished build wait, so that a killed build goes on from them.

The folder stands beside the dataset's own and is named after the plan's identity: shards of
another plan (other archive, other format, other count) are never found there. Beside each shard
that is whole stands a small file that says what it holds; a shard without one, or which does not
hold that, is written again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator

import filelock
from absl import logging
from etils import epath

from imagenet_family import readers
from imagenet_family.errors import BuildError
from imagenet_family.examples import Examples
from imagenet_family.writers import (
    TEMPORARY_SUFFIX,
    ShardResult,
    is_local,
    write_error,
    write_shard,
)

_RESULT_SUFFIX = ".json"
_TARGET_PREFIX = "target."


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to write: an independent piece of work for any process or machine."""

    examples: Examples
    path: str
    file_format: str


def ensure_shard(task: ShardTask) -> ShardResult:
    """Writes a shard, unless it already stands there whole.

    Raises:
        ImagenetFamilyError: See `write_shard`.
    """
    path = epath.Path(task.path)
    note = path.parent / (path.name + _RESULT_SUFFIX)
    noted = _read_result(note)
    if noted is not None and _holds(path, task.file_format, noted):
        return noted
    result = write_shard(task.examples, path, task.file_format)
    try:
        note.write_text(json.dumps(dataclasses.asdict(result), sort_keys=True))
    except OSError as error:
        raise write_error(note, error) from error
    return result


def _read_result(note: epath.Path) -> ShardResult | None:
    try:
        return ShardResult(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _holds(path: epath.Path, file_format: str, noted: ShardResult) -> bool:
    try:
        return readers.summarize(path, file_format) == noted
    except BuildError as error:
        logging.warning("%s It is written again.", error)
        return False


class Staging:
    """The folder in which the shards of one plan are written.

    Args:
        dataset: Where the finished dataset will be.
        identity: Identity of the plan.
    """

    def __init__(self, dataset: epath.Path, identity: str) -> None:
        self.path = dataset.parent / f"{_prefix(dataset)}{identity[:16]}"

    def open(self, target: epath.Path) -> None:
        """Makes the folder and clears away what killed builds left.

        Args:
            target: The temporary folder that `publish` will fill.

        Raises:
            BuildError: The folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in self.path.iterdir():
                if path.name.startswith(_TARGET_PREFIX):
                    _remove_target(path)
                elif path.name.endswith(TEMPORARY_SUFFIX):
                    path.unlink()
            (self.path / f"{_TARGET_PREFIX}{target.name}").touch()
        except OSError as error:
            raise write_error(self.path, error) from error

    def publish(self, shards: list[str], target: epath.Path) -> None:
        """Puts finished shards into the folder that becomes the dataset.

        They are linked, not moved, so that a build that is killed before the dataset appears
        still finds them here.

        Raises:
            BuildError: The folder cannot be written to.
        """
        try:
            for shard in shards:
                _link(self.path / shard, target / shard)
        except OSError as error:
            raise write_error(target, error) from error


def clear(dataset: epath.Path, *, keep: epath.Path | None = None) -> None:
    """Removes all staging folders of a dataset but one, with what their builds left behind."""
    if not dataset.parent.exists():
        return
    for folder in dataset.parent.iterdir():
        if folder.name.startswith(_prefix(dataset)) and folder != keep:
            for path in folder.iterdir():
                if path.name.startswith(_TARGET_PREFIX):
                    _remove_target(path)
            folder.rmtree(missing_ok=True)


@contextlib.contextmanager
def build_lock(dataset: epath.Path) -> Iterator[None]:
    """Keeps two builds of one dataset from running at once: the second one waits.

    On object stores, which have no locks, two builds write the same bytes to the same names.

    Raises:
        BuildError: The folder above the dataset cannot be written to.
    """
    if not is_local(dataset):
        yield
        return
    path = dataset.parent / f".{dataset.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(os.fspath(path))
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            logging.warning("Another process is building %s; waiting for it.", dataset)
            lock.acquire()
    except NotImplementedError:  # a file system without locks
        yield
        return
    except OSError as error:
        raise write_error(path, error) from error
    with lock:
        lock.release()  # `with` has acquired it once more
        yield


def _prefix(dataset: epath.Path) -> str:
    return f"partial.{dataset.name}."


def _remove_target(marker: epath.Path) -> None:
    target = marker.parent.parent / marker.name.removeprefix(_TARGET_PREFIX)
    target.rmtree(missing_ok=True)
    marker.unlink()


def _link(source: epath.Path, target: epath.Path) -> None:
    if is_local(source):
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            source.rename(target)
    else:
        source.copy(target)

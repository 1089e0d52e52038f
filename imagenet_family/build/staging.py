"""Where a dataset is written until all of it is there, so that a killed build goes on from it.

    partial.<dataset>.<digest of the plan>/         becomes the dataset, by renaming
        <shard>
    partial.<dataset>.<digest of the plan>.notes/   what serves the writing, and goes in the end
        <shard>.json                                what that shard holds, once it is whole

Both stand beside the dataset's own folder. As the plan gives them their names, the shards of
another plan (other archive, other format, other number) are never found there. A shard without a
note, or which does not hold what its note says, is written again.

The notes have a folder of their own so that nothing has to be removed before the dataset gets its
name: a build that is killed at any moment until then still finds all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from imagenet_family.errors import BuildError
from imagenet_family.examples.plan import ShardExamples
from imagenet_family.shards import check_shard, manifest, write_shard
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage import files
from imagenet_family.storage.locks import file_lock
from imagenet_family.storage.paths import PathLike, is_local, join, name_of, parent_of

DATASET_INFO = "dataset_info.json"
"""By this file TFDS knows a prepared dataset."""

_NOTES = ".notes"
_REPLACED = "replaced"
# Workers of a killed build look this often at most, in seconds, whether their parent is alive.
_WORKERS_LINGER = 3.0


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to write: an independent piece of work for any process or machine."""

    examples: ShardExamples
    path: str
    file_format: str


def ensure_shard(task: ShardTask) -> ShardResult:
    """Writes a shard, unless it already stands there whole.

    Raises:
        ImagenetFamilyError: See `write_shard`.
    """
    noted, note = noted_result(task.path), note_path(task.path)
    if noted is not None:
        check = check_shard(task.path, task.file_format, noted, name_of(note))
        if check.problem is None:
            return noted
        logging.warning("%s It is written again.", check.problem)
    result = write_shard(task.examples, task.path, task.file_format)
    files.write_bytes(note, json.dumps(dataclasses.asdict(result), sort_keys=True).encode())
    return result


def noted_result(shard: PathLike) -> ShardResult | None:
    """Gives what the note of a shard says that it holds; None if there is no such note."""
    # Whatever the note holds, it only counts if the shard's own content agrees.
    try:
        return ShardResult.from_json(json.loads(files.read_bytes(note_path(shard))))
    except (OSError, *manifest.MALFORMED):
        return None


def note_path(shard: PathLike, suffix: str = ".json") -> str:
    """Gives the path of a file that serves the writing of a shard."""
    return join(notes_folder(parent_of(shard)), f"{name_of(shard)}{suffix}")


def shard_of(note: PathLike, suffix: str) -> str:
    """Gives the path of the shard whose writing such a file serves."""
    return join(parent_of(note).removesuffix(_NOTES), name_of(note).removesuffix(suffix))


def notes_folder(folder: PathLike) -> str:
    """Gives the folder of all such files, for a folder of shards."""
    return f"{os.fspath(folder)}{_NOTES}"


class Staging:
    """The folder in which a dataset is written, and which becomes the dataset.

    Attributes:
        target: The dataset.
        folder: Where it is written.
    """

    def __init__(
        self, target: PathLike, plan_digest: str | None, *, last: str = DATASET_INFO
    ) -> None:
        """Makes nothing yet.

        Args:
            target: Where the finished dataset will be.
            plan_digest: Digest of the plan; None if there is no plan by which a later build could
                go on.
            last: The file by which a finished dataset is known: the last one to appear in object
                stores, where renaming is copying one by one.
        """
        self.target = os.fspath(target)
        self._resumable = plan_digest is not None
        self.folder = _beside(target, (plan_digest or secrets.token_hex(8))[:16])
        self._notes = notes_folder(self.folder)
        self._last = last
        self._shards: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def filling(self, *, flush: bool = False) -> Iterator[str]:
        """Gives the folder, ready to be filled; it becomes the dataset if all goes well.

        After an error it stays as it is, for the next build.

        Args:
            flush: Whether all of it is on the disk before it gets the dataset's name.

        Raises:
            BuildError: The folder cannot be made, filled or renamed.
        """
        with _explained(self.folder):
            self._make()
        try:
            yield self.folder
        except BaseException:
            if not self._resumable:
                with contextlib.suppress(OSError):  # the build's own error matters more
                    self._remove()
            raise
        with _explained(self.target):
            self._publish(flush)

    def _make(self) -> None:
        for folder in (self.folder, self._notes):
            files.make_folder(folder)
            files.remove_named(folder, "", files.TEMPORARY_SUFFIX)
        clear(self.target, keep=self)

    def record(self, shards: manifest.Splits, file_format: str, source: str | None = None) -> None:
        """Writes the manifest of the shards, and removes what killed builds left beside them.

        Args:
            shards: What each shard holds.
            file_format: See `manifest.write`.
            source: See `manifest.write`.

        Raises:
            BuildError: Something cannot be written or removed.
        """
        self._shards = frozenset().union(*shards.values())
        with _explained(self.folder):
            for name in set(files.listing(self.folder)) - self._shards:
                files.remove_tree(join(self.folder, name))
        manifest.write(self.folder, file_format, shards, source)

    def _publish(self, flush: bool) -> None:
        names = files.listing(self.folder)
        missing = sorted(self._shards.difference(names))
        if missing:
            raise BuildError(
                f"{join(self.folder, missing[0])} is gone ({len(missing)} in all). Does another "
                "program write into that folder? Run the same command again."
            )
        if is_local(self.target):
            if flush:
                files.flush_folder(self.folder)
            files.rename(self.folder, self.target)
            if flush:
                files.flush(parent_of(self.target))  # the name, too, before the notes go
            # A worker of a killed build may have begun something here in its last half second.
            files.remove_named(self.target, "", files.TEMPORARY_SUFFIX)
        else:
            files.copy_all(self.folder, self.target, [n for n in names if n != self._last])
            files.copy_all(self.folder, self.target, [n for n in names if n == self._last])
        self._remove()

    def _remove(self) -> None:
        _remove_tree(self.folder)
        _remove_tree(self._notes)


def check_place(dataset: PathLike) -> None:
    """Checks that the folder of a dataset is not somewhere else: it is made by renaming.

    Raises:
        BuildError: It is a symbolic link.
    """
    if is_local(dataset) and Path(dataset).is_symlink():
        raise BuildError(
            f"{os.fspath(dataset)} is a symbolic link to {Path(dataset).readlink()}; a dataset "
            "cannot be written through one. Remove the link, or let it be that of a folder above, "
            "such as data_dir."
        )


def discard(dataset: PathLike) -> None:
    """Removes a dataset so that no half of it ever looks prepared.

    Raises:
        BuildError: It cannot be removed.
    """
    check_place(dataset)
    replaced = _beside(dataset, _REPLACED)
    with _explained(dataset):
        if is_local(dataset):
            _remove_tree(replaced)
            files.rename(dataset, replaced)
        else:  # nothing is renamed at once there; the mark tells the next build of it
            files.write_bytes(join(replaced, name_of(dataset)), b"")
            files.remove(join(dataset, DATASET_INFO))
            files.remove_tree(dataset)
        _remove_tree(replaced)


def discard_half(dataset: PathLike, last: str = DATASET_INFO) -> None:
    """Removes a dataset of an object store that began to appear, or to be removed, and was stopped.

    Args:
        dataset: The dataset, which need not exist.
        last: As for `Staging`.

    Raises:
        BuildError: It cannot be removed.
    """
    if is_local(dataset):
        return
    found = files.listing(dataset)
    if found and last not in found and is_unfinished(dataset):
        discard(dataset)


def is_unfinished(dataset: PathLike) -> bool:
    """Tells whether a build has left something to go on from, or to clear away."""
    return bool(_left_by(dataset))


def clear_finished(dataset: PathLike) -> None:
    """Clears away what is left when a build was killed after its dataset had appeared."""
    if not is_unfinished(dataset):
        return
    try:
        with build_lock(dataset):
            if files.exists(dataset):
                clear(dataset)
    except BuildError as error:  # a folder that is read-only by now; the dataset is good
        logging.warning("%s", error)


def clear(dataset: PathLike, *, keep: Staging | None = None) -> None:
    """Removes what builds of a dataset have left, but for one staging folder.

    Raises:
        BuildError: Something cannot be removed.
    """
    kept = (keep.folder, notes_folder(keep.folder)) if keep else ()
    with _explained(dataset):
        for path in _left_by(dataset):
            if path not in kept:
                _remove_tree(path)


@contextlib.contextmanager
def build_lock(dataset: PathLike) -> Iterator[None]:
    """Keeps two builds of one dataset from running at once: the second one waits.

    On object stores, which have no locks, two builds write the same bytes to the same names.

    Raises:
        BuildError: The folder above the dataset cannot be written to.
    """
    if not is_local(dataset):
        yield
        return
    path = join(parent_of(dataset), f".{name_of(dataset)}.lock")
    with contextlib.ExitStack() as stack:
        with _explained(path):
            stack.enter_context(file_lock(path, f"building {os.fspath(dataset)}"))
        yield


def _beside(dataset: PathLike, end: str) -> str:
    return join(parent_of(dataset), f"partial.{name_of(dataset)}.{end}")


def _left_by(dataset: PathLike) -> list[str]:
    # All of the name counts: an export called `out` is no business of another one called `out.2`.
    ours = re.compile(
        rf"partial\.{re.escape(name_of(dataset))}\.([0-9a-f]{{16}}({re.escape(_NOTES)})?|{_REPLACED})"
    )
    parent = parent_of(dataset)
    return [join(parent, name) for name in files.listing(parent) if ours.fullmatch(name)]


def _remove_tree(folder: str) -> None:
    give_up = time.monotonic() + _WORKERS_LINGER
    while True:
        try:
            files.remove_tree(folder)
            return
        except OSError:  # a worker of a killed build may still be writing there
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def _explained(path: PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.write_error(path, error) from error

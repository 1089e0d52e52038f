"""Where the shards of an unfinished build wait, so that a killed build goes on from them.

The folder stands beside the dataset's own and is named after the plan's identity: shards of
another plan (other archive, other format, other count) are never found there. Beside each shard
that is whole stands a small file that says what it holds; a shard without one, or which does not
hold that, is written again.

The temporary folder that becomes the dataset has a random name, so each build notes the one that
it fills; the next one clears away those that killed builds have left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from etils import epath

from imagenet_family.errors import BuildError
from imagenet_family.examples.plan import ShardExamples
from imagenet_family.shards import check_shard, manifest, write_shard
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage import stores
from imagenet_family.storage.files import TEMPORARY_SUFFIX, atomic_file, write_error
from imagenet_family.storage.locks import file_lock
from imagenet_family.storage.stores import is_local

_RESULT_SUFFIX = ".json"
_PREFIX = "partial."
_TARGET_PREFIX = "target."
_REMOVED_PREFIX = "removed."
# Seconds between the announcement of a build and the temporary folder that TFDS makes.
_FOLDER_IS_MADE_WITHIN = 60
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
    path = epath.Path(task.path)
    noted = noted_result(path)
    if noted is not None:
        check = check_shard(path, task.file_format, noted, _note(path).name)
        if check.problem is None:
            return noted
        logging.warning("%s It is written again.", check.problem)
    result = write_shard(task.examples, path, task.file_format)
    with atomic_file(_note(path)) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(result), sort_keys=True))
    return result


def noted_result(shard: epath.PathLike) -> ShardResult | None:
    """Gives what the note beside a shard says that it holds; None if there is no such note."""
    # Whatever the note holds, it only counts if the shard's own content agrees.
    try:
        return ShardResult.from_json(json.loads(_note(epath.Path(shard)).read_bytes()))
    except (OSError, *manifest.MALFORMED):
        return None


def _note(shard: epath.Path) -> epath.Path:
    return shard.parent / f"{shard.name}{_RESULT_SUFFIX}"


class Staging:
    """The folder in which the shards of one plan are written.

    Args:
        dataset: Where the finished dataset will be.
        identity: Identity of the plan.
    """

    def __init__(self, dataset: epath.Path, identity: str) -> None:
        self.path = dataset.parent / f"{_prefix(dataset)}{identity[:16]}"
        self._announcement = _announcement(dataset)

    def open(self, target: epath.Path) -> None:
        """Makes the folder and clears away what killed builds left, in it and beside it.

        Args:
            target: The temporary folder that `publish` will fill.

        Raises:
            BuildError: The folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in stores.listing(self.path):
                if path.name.startswith(_TARGET_PREFIX) and path.name != _marker(target):
                    _take_back_to(path)
                    _remove_target(path)
                elif path.name.endswith(TEMPORARY_SUFFIX):
                    path.unlink(missing_ok=True)
            (self.path / _marker(target)).touch()
            _remove_tree(self._announcement)
        except OSError as error:
            raise write_error(self.path, error) from error

    def publish(self, shards: list[str], target: epath.Path) -> None:
        """Puts finished shards into the folder that becomes the dataset.

        They are linked, not moved, so that a build that is killed before the dataset appears
        still finds them here. Where there are no hard links they are moved, and `take_back` has
        to be called before the folder is removed.

        Raises:
            BuildError: The folder cannot be written to.
        """
        try:
            if not is_local(target):
                stores.copy_all(self.path, target, shards)
                return
            for shard in shards:
                _link(self.path / shard, target / shard)
        except OSError as error:
            raise write_error(target, error) from error


def take_back(target: epath.PathLike) -> None:
    """Moves shards back into their staging folder, from where a failed build had to move them.

    Args:
        target: The temporary folder of a build that fails, before it is removed.
    """
    target = epath.Path(target)
    try:
        for folder in stores.listing(target.parent):
            marker = folder / _marker(target)
            if folder.name.startswith(_PREFIX) and marker.exists():
                _take_back_to(marker)
    except OSError as error:  # the build's own error matters more
        logging.warning("Finished shards in %s are lost: %s", target, error)


def _take_back_to(marker: epath.Path) -> None:
    target, stage = _target_of(marker), marker.parent
    for path in stores.listing(target):
        if _note(stage / path.name).exists() and not (stage / path.name).exists():
            path.rename(stage / path.name)


def announce(dataset: epath.Path) -> None:
    """Notes that a build begins whose temporary folder is empty until all is planned.

    Args:
        dataset: Where the finished dataset will be.

    Raises:
        BuildError: The note cannot be written.
    """
    note = _announcement(dataset)
    try:
        if note.exists():  # that build was killed; the name of its folder is not known
            begun = note.stat().mtime
            temporary = re.compile(rf"incomplete\.\w+_{re.escape(dataset.name)}")
            for path in dataset.parent.iterdir():
                if not temporary.fullmatch(path.name):
                    continue
                if 0 <= path.stat().mtime - begun < _FOLDER_IS_MADE_WITHIN:
                    with contextlib.suppress(OSError):  # not empty, so it is not that one
                        path.rmdir()
            _remove_tree(note)
        note.mkdir(parents=True)
    except OSError as error:
        raise write_error(note, error) from error


def withdraw(dataset: epath.Path) -> None:
    """Takes back the announcement of a build that ended with an error, and so left no folder."""
    with contextlib.suppress(OSError):  # the build's own error matters more
        _announcement(dataset).rmtree(missing_ok=True)


def check_place(dataset: epath.Path) -> None:
    """Checks that the folder of a dataset is not somewhere else: it is made by renaming.

    Raises:
        BuildError: It is a symbolic link.
    """
    if is_local(dataset) and Path(dataset).is_symlink():
        raise BuildError(
            f"{dataset} is a symbolic link to {Path(dataset).readlink()}; a dataset cannot be "
            "written through one. Remove the link, or let it be that of a folder above, such as "
            "data_dir."
        )


def discard(dataset: epath.Path) -> None:
    """Removes a prepared dataset; killed half-way, it leaves nothing that looks prepared.

    Raises:
        BuildError: It cannot be removed.
    """
    check_place(dataset)
    replaced = dataset.parent / f"{_prefix(dataset)}replaced"
    try:
        if not is_local(dataset):  # nothing is renamed at once there; the mark tells of it
            (replaced / dataset.name).touch()
            _remove_tree(dataset)
            _remove_tree(replaced)
            return
        _remove_tree(replaced)
        dataset.rename(replaced)
        _remove_tree(replaced)
    except OSError as error:
        raise write_error(dataset, error) from error


def is_unfinished(dataset: epath.Path) -> bool:
    """Tells whether a build has left something to go on from, or to clear away."""
    return any(path.name.startswith(_prefix(dataset)) for path in stores.listing(dataset.parent))


def clear_finished(dataset: epath.Path) -> None:
    """Clears away what is left when a build was killed after its dataset had appeared."""
    if not is_unfinished(dataset):
        return
    try:
        with build_lock(dataset):
            if dataset.exists():
                clear(dataset)
    except BuildError as error:  # a folder that is read-only by now; the dataset is good
        logging.warning("%s", error)


def clear(dataset: epath.Path, *, keep: epath.Path | None = None) -> None:
    """Removes all staging folders of a dataset but one, with what their builds left behind.

    Raises:
        BuildError: Something cannot be removed.
    """
    try:
        for folder in stores.listing(dataset.parent):
            if folder.name.startswith(_prefix(dataset)) and folder != keep:
                for path in stores.listing(folder):
                    if path.name.startswith(_TARGET_PREFIX):
                        _remove_target(path)
                _remove_tree(folder)
    except OSError as error:
        raise write_error(dataset, error) from error


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
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path, f"building {dataset}"))
        except OSError as error:
            raise write_error(path, error) from error
        yield


def _prefix(dataset: epath.Path) -> str:
    return f"{_PREFIX}{dataset.name}."


def _announcement(dataset: epath.Path) -> epath.Path:
    return dataset.parent / f"{_prefix(dataset)}begun"


def _marker(target: epath.Path) -> str:
    return f"{_TARGET_PREFIX}{target.name}"


def _target_of(marker: epath.Path) -> epath.Path:
    return marker.parent.parent / marker.name.removeprefix(_TARGET_PREFIX)


def _remove_target(marker: epath.Path) -> None:
    target = removed = _target_of(marker)
    if is_local(target):
        # In one step: where locks are those of one machine only, another one may be about to give
        # this folder the dataset's name, and would then have a part of it.
        removed = marker.with_name(f"{_REMOVED_PREFIX}{target.name}")
        with contextlib.suppress(FileNotFoundError):
            target.rename(removed)
    _remove_tree(removed)
    marker.unlink(missing_ok=True)


def _remove_tree(folder: epath.Path) -> None:
    give_up = time.monotonic() + _WORKERS_LINGER
    while True:
        try:
            folder.rmtree(missing_ok=True)
            return
        except OSError:  # a worker of a killed build may still be writing there
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def _link(source: epath.Path, target: epath.Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        source.rename(target)

"""Checks prepared datasets: every record of every shard, counts, and digests where recorded.

Any dataset of the family will do, also one that stock TFDS wrote; only builds of this package
record a digest of each shard.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Iterable

from imagenet_family import DATASETS, progress
from imagenet_family.build import processes
from imagenet_family.datasets import by_name
from imagenet_family.errors import BuildError, ImagenetFamilyError, MissingFileError
from imagenet_family.shards import check_shard, manifest
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, join, name_of, parent_of

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_BUILD_AGAIN = "Build the dataset again, with --overwrite"


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What was found of one shard.

    Attributes:
        split: Name of the split.
        path: The file.
        num_examples: Number of its records; None if they cannot be read.
        num_bytes: Bytes of them; None if they cannot be read.
        digest: See `shards.ShardResult`; None if they cannot be read.
        problems: What is wrong, each in one sentence.
    """

    split: str
    path: str
    num_examples: int | None
    num_bytes: int | None
    digest: str | None
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PreparedReport:
    """What was found of a prepared dataset.

    Attributes:
        name: Dataset, config and version.
        folder: Where it is.
        file_format: A value of `tfds.core.FileFormat`; None if that cannot be told.
        shards: Its shards, split by split.
        compared: Whether digests were recorded, so that shards could be compared with them.
        problems: What is wrong beside the shards, each in one sentence.
    """

    name: str
    folder: str
    file_format: str | None
    shards: tuple[ShardReport, ...]
    compared: bool
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(shard.problems for shard in self.shards)


@dataclasses.dataclass(frozen=True)
class _ShardTask:
    split: str
    path: str
    file_format: str
    num_examples: int
    recorded: ShardResult | None


def find(data_dir: PathLike, names: Iterable[str] = ()) -> list[str]:
    """Finds prepared datasets of the family.

    Args:
        data_dir: What TFDS calls data_dir.
        names: Datasets, with or without config and version (`'imagenet_v2/topimages:3.0.0'`); all
            of the family if there are none. Also those of your own, by their Python file.

    Raises:
        UsageError: A name is not that of a dataset.
        MissingFileError: There is no such folder, or no such dataset in it.
        BuildError: A folder cannot be read.
    """
    root = os.fspath(data_dir)
    try:
        return _find(root, list(names))
    except ImagenetFamilyError:
        raise
    except OSError as error:
        raise BuildError(
            f"{root}: the prepared datasets cannot be looked for: {error}. Change the permissions "
            "of the folder, or use another account."
        ) from error


def _find(root: str, names: list[str]) -> list[str]:
    if not files.is_folder(root):
        raise MissingFileError(f"{root} is not a folder. Say which data_dir the datasets are in.")
    found = []
    for name in names or list(DATASETS):
        request = by_name.resolve(name)
        path = f"{request.name}/{request.config}" if request.config else request.name
        here = [
            folder
            for folder in _versions(join(root, path))
            if fnmatch.fnmatchcase(name_of(folder), request.version or "*")
        ]
        if names and not here:
            raise MissingFileError(f"{root} holds no prepared dataset {name}. Build it first.")
        found += here
    if not found:
        raise MissingFileError(f"{root} holds no prepared dataset of {', '.join(DATASETS)}.")
    return found


def check(
    folder: PathLike, *, workers: int | None = None, show_progress: bool = True
) -> PreparedReport:
    """Checks one prepared dataset.

    Args:
        folder: The folder of its version.
        workers: Number of processes; see `processes.default_workers`.
        show_progress: Whether to show a progress bar.
    """
    import tensorflow_datasets as tfds

    folder = os.fspath(folder)
    try:
        info = tfds.builder_from_directory(folder).info
        file_format = info.file_format.value
        splits = {
            name: (split.filepaths, split.shard_lengths) for name, split in info.splits.items()
        }
        num_bytes = {name: int(split.num_bytes) for name, split in info.splits.items()}
    except Exception as error:  # TFDS has many words for metadata that it cannot read
        problem = (
            f"{folder}: the description of the dataset cannot be read ({type(error).__name__}: "
            f"{error}). {_BUILD_AGAIN}."
        )
        return PreparedReport(_name_of(folder), folder, None, (), False, (problem,))
    recorded, problems = _recorded(folder)
    tasks = [
        _ShardTask(
            name,
            os.fspath(path),
            file_format,
            length,
            (recorded or {}).get(name, {}).get(path.name),
        )
        for name, (paths, lengths) in splits.items()
        for path, length in zip(paths, lengths, strict=True)
    ]
    if recorded is not None:
        problems += [
            f"{task.path}: {manifest.NAME} records nothing of it. {_BUILD_AGAIN}."
            for task in tasks
            if task.recorded is None
        ]
    total = sum(num_bytes.values())
    reports: dict[str, ShardReport] = {}
    with (
        processes.WorkerPool(_check_shard, workers) as pool,
        progress.bytes_bar(f"Checking {info.name}", total, enabled=show_progress) as bar,
    ):
        pool.expect(total, len(tasks))
        for task, report in pool(tasks):
            reports[task.path] = report
            bar.update(report.num_bytes or 0)
    shards = tuple(reports[task.path] for task in tasks)
    for name, expected in num_bytes.items():
        sizes = [shard.num_bytes for shard in shards if shard.split == name]
        found = sum(size for size in sizes if size is not None)
        if None not in sizes and found != expected:
            problems.append(
                f"{folder}: split {name!r}: expected {expected:,} bytes of records, as "
                f"dataset_info.json says, found {found:,}. {_BUILD_AGAIN}."
            )
    full_name = info.full_name
    return PreparedReport(
        full_name, folder, file_format, shards, recorded is not None, tuple(problems)
    )


def _name_of(folder: str) -> str:
    """Gives dataset, config and version as far as a folder's path tells them."""
    above = parent_of(folder)  # <dataset>/<config>/<version>, or without a config
    parts = [name_of(parent_of(above)), name_of(above), name_of(folder)]
    return "/".join(parts if parts[0] in DATASETS else parts[1:])


def _versions(folder: str) -> list[str]:
    """Gives the prepared versions of a dataset or of a config, or of all its configs."""
    if not files.is_folder(folder):
        return []
    found = []
    for name in files.listing(folder):
        path = join(folder, name)
        if _VERSION.fullmatch(name):
            found.append(path)
        elif not name.startswith(("partial.", "incomplete.", ".")) and files.is_folder(path):
            below = files.listing(path)
            found += [join(path, version) for version in below if _VERSION.fullmatch(version)]
    return found


def _recorded(folder: str) -> tuple[manifest.Splits | None, list[str]]:
    """Gives what the manifest records, None without one, and what is wrong with it."""
    try:
        return manifest.read(folder).splits, []
    except MissingFileError:
        return None, []
    except BuildError as error:
        return None, [f"{manifest.NAME} cannot be read, so digests cannot be compared: {error}"]


def _check_shard(task: _ShardTask) -> ShardReport:
    if not files.exists(task.path):
        problem = f"{task.path} is missing. {_BUILD_AGAIN}."
        return ShardReport(task.split, task.path, None, None, None, (problem,))
    check = check_shard(task.path, task.file_format, task.recorded)
    problems = [check.problem] if check.problem else []
    found = check.found
    if found is None:
        return ShardReport(task.split, task.path, None, None, None, tuple(problems))
    if found.num_examples != task.num_examples:
        problems.append(
            f"{task.path}: expected {task.num_examples:,} records, as dataset_info.json says, "
            f"found {found.num_examples:,}. {_BUILD_AGAIN}."
        )
    return ShardReport(task.split, task.path, **vars(found), problems=tuple(problems))

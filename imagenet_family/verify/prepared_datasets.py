"""Checks prepared datasets: every record of every shard, counts, and digests where recorded.

Any dataset of the family will do, also one that stock TFDS wrote; only builds of this package
record a digest of each shard.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from imagenet_family import DATASETS, progress
from imagenet_family.build import processes
from imagenet_family.build.shard_writing import MANIFEST
from imagenet_family.errors import BuildError, ImagenetFamilyError, MissingFileError, UsageError
from imagenet_family.shards import read
from imagenet_family.shards.digest import ShardResult

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
    recorded: Any


def find(data_dir: epath.PathLike, names: Iterable[str] = ()) -> list[epath.Path]:
    """Finds prepared datasets of the family.

    Args:
        data_dir: What TFDS calls data_dir.
        names: Datasets, with or without config and version (`'imagenet_v2/topimages:3.0.0'`); all
            of the family if there are none.

    Raises:
        UsageError: A name is not one of the family.
        MissingFileError: There is no such folder, or no such dataset in it.
        BuildError: A folder cannot be read.
    """
    root = epath.Path(data_dir)
    try:
        return _find(root, list(names))
    except ImagenetFamilyError:
        raise
    except OSError as error:
        raise BuildError(
            f"{root}: the prepared datasets cannot be looked for: {error}. Change the permissions "
            "of the folder, or use another account."
        ) from error


def _find(root: epath.Path, names: list[str]) -> list[epath.Path]:
    if not root.is_dir():
        raise MissingFileError(f"{root} is not a folder. Say which data_dir the datasets are in.")
    found = []
    for name in names or list(DATASETS):
        path, _, version = name.partition(":")
        if path.partition("/")[0] not in DATASETS:
            raise UsageError(f"There is no dataset {name!r}; there are {', '.join(DATASETS)}.")
        here = [
            folder
            for folder in _versions(root / path)
            if fnmatch.fnmatchcase(folder.name, version or "*")
        ]
        if names and not here:
            raise MissingFileError(f"{root} holds no prepared dataset {name}. Build it first.")
        found += here
    if not found:
        raise MissingFileError(f"{root} holds no prepared dataset of {', '.join(DATASETS)}.")
    return found


def check(
    folder: epath.PathLike, *, workers: int | None = None, show_progress: bool = True
) -> PreparedReport:
    """Checks one prepared dataset.

    Args:
        folder: The folder of its version.
        workers: Number of processes; see `processes.default_workers`.
        show_progress: Whether to show a progress bar.
    """
    import tensorflow_datasets as tfds

    folder = epath.Path(folder)
    try:
        info = tfds.builder_from_directory(folder).info
        file_format = info.file_format.value
        splits = {
            name: ([os.fspath(path) for path in split.filepaths], split.shard_lengths)
            for name, split in info.splits.items()
        }
        num_bytes = {name: int(split.num_bytes) for name, split in info.splits.items()}
    except Exception as error:  # TFDS has many words for metadata that it cannot read
        problem = (
            f"{folder}: the description of the dataset cannot be read ({type(error).__name__}: "
            f"{error}). {_BUILD_AGAIN}."
        )
        return PreparedReport(_name_of(folder), os.fspath(folder), None, (), False, (problem,))
    manifest, problems = _read_manifest(folder)
    tasks = [
        _ShardTask(name, path, file_format, length, _recorded(manifest, name, path))
        for name, (paths, lengths) in splits.items()
        for path, length in zip(paths, lengths, strict=True)
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
        if None not in sizes and sum(sizes) != expected:
            problems.append(
                f"{folder}: split {name!r}: expected {expected:,} bytes of records, as "
                f"dataset_info.json says, found {sum(sizes):,}. {_BUILD_AGAIN}."
            )
    full_name = info.full_name
    return PreparedReport(
        full_name, os.fspath(folder), file_format, shards, manifest is not None, tuple(problems)
    )


def _name_of(folder: epath.Path) -> str:
    """Gives dataset, config and version as far as a folder's path tells them."""
    parts = folder.parts[-3:]  # <dataset>/<config>/<version>, or without a config
    return "/".join(parts if parts[0] in DATASETS else parts[1:])


def _versions(folder: epath.Path) -> list[epath.Path]:
    """Gives the prepared versions of a dataset or of a config, or of all its configs."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir(), key=os.fspath):
        if _VERSION.fullmatch(path.name):
            found.append(path)
        elif not path.name.startswith(("partial.", "incomplete.", ".")) and path.is_dir():
            below = sorted(path.iterdir(), key=os.fspath)
            found += [version for version in below if _VERSION.fullmatch(version.name)]
    return found


def _read_manifest(folder: epath.Path) -> tuple[Mapping[str, Any] | None, list[str]]:
    path = folder / MANIFEST
    try:
        if not path.exists():
            return None, []
        splits = json.loads(path.read_bytes())["splits"]
        if not all(isinstance(shards, dict) for shards in splits.values()):
            raise TypeError("a split is no list of shards")
        return splits, []
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        return None, [
            f"{path} cannot be read ({type(error).__name__}: {error}), so digests cannot be "
            f"compared. {_BUILD_AGAIN}."
        ]


def _recorded(manifest: Mapping[str, Any] | None, split: str, path: str) -> Any:
    if manifest is None:
        return None
    return manifest.get(split, {}).get(os.path.basename(path), "nothing")  # noqa: PTH119 (a URL)


def _check_shard(task: _ShardTask) -> ShardReport:
    try:
        if not epath.Path(task.path).exists():
            raise BuildError(f"{task.path} is missing. {_BUILD_AGAIN}.")
        found = read.summarize(task.path, task.file_format)
    except ImagenetFamilyError as error:
        return ShardReport(task.split, task.path, None, None, None, (str(error),))
    return ShardReport(
        task.split,
        task.path,
        found.num_examples,
        found.num_bytes,
        found.digest,
        tuple(_shard_problems(task, found)),
    )


def _shard_problems(task: _ShardTask, found: ShardResult) -> list[str]:
    problems = []
    if found.num_examples != task.num_examples:
        problems.append(
            f"{task.path}: expected {task.num_examples:,} records, as dataset_info.json says, "
            f"found {found.num_examples:,}. {_BUILD_AGAIN}."
        )
    if task.recorded is not None and task.recorded != dataclasses.asdict(found):
        problems.append(
            f"{task.path}: {MANIFEST} records {task.recorded}, found "
            f"{dataclasses.asdict(found)}. The shard was changed or replaced. {_BUILD_AGAIN}."
        )
    return problems

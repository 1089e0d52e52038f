"""Checks an export of WebDataset tars against its `_info.json` and its manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from imagenet_family import progress
from imagenet_family.build import processes, shard_writing
from imagenet_family.errors import BuildError, MissingFileError
from imagenet_family.shards import read, webdataset
from imagenet_family.shards.digest import ShardResult
from imagenet_family.storage.stores import is_local

INFO = "_info.json"
"""Beside the shards: what timm reads of them."""


def absolute(folder: epath.PathLike) -> epath.Path:
    """Gives the full path of the folder of an export."""
    # Links are followed: what is renamed to the folder's name has to be on its file system.
    return epath.Path(os.path.realpath(folder) if is_local(folder) else folder)


class Split(NamedTuple):
    """What `_info.json` says of a split."""

    num_samples: int
    shards: tuple[str, ...]
    lengths: tuple[int, ...]


class Manifest(NamedTuple):
    """What the manifest says: what each shard holds, and what they were made from, if it tells."""

    splits: Mapping[str, Mapping[str, ShardResult]]
    source: str | None


def check_webdataset(
    output_dir: epath.PathLike, *, workers: int | None = None, show_progress: bool = True
) -> list[str]:
    """Checks an export: every byte of every shard, against its image, `_info.json` and manifest.

    Args:
        output_dir: The folder that `export_webdataset` made.
        workers: Number of processes; see `processes.default_workers`.
        show_progress: Whether to show a progress bar.

    Returns:
        What is wrong, a sentence or two each; nothing if all is well.

    Raises:
        MissingFileError: There is no export in the folder.
        BuildError: Its `_info.json` or its manifest cannot be understood.
    """
    folder = absolute(output_dir)
    info, manifest = read_info(folder), read_manifest(folder).splits
    problems = _compare(folder, info, manifest)
    tasks = [
        _CheckTask(os.fspath(folder / name), expected)
        for shards in manifest.values()
        for name, expected in shards.items()
    ]
    num_bytes = sum(task.expected.num_bytes for task in tasks)
    with (
        processes.WorkerPool(_check_shard, workers) as pool,
        progress.bytes_bar("Checking", num_bytes, enabled=show_progress) as bar,
    ):
        pool.expect(num_bytes, len(tasks))
        for task, problem in pool(tasks):
            problems += [problem] if problem else []
            bar.update(task.expected.num_bytes)
    return problems


def _compare(
    folder: epath.Path,
    info: Mapping[str, Split],
    manifest: Mapping[str, Mapping[str, ShardResult]],
) -> list[str]:
    problems = []
    written = {
        name: (tuple(shards), tuple(result.num_examples for result in shards.values()))
        for name, shards in manifest.items()
    }
    if written != {name: (split.shards, split.lengths) for name, split in info.items()}:
        problems.append(
            f"{folder}: {INFO} and {shard_writing.MANIFEST} do not name the same shards with the "
            "same numbers of samples. One of them was changed: delete the folder and export again."
        )
    for name, split in info.items():
        if split.num_samples != sum(split.lengths):
            problems.append(
                f"{folder / INFO}: split {name!r} has {split.num_samples} samples, but "
                f"{sum(split.lengths)} in its shards. It was changed: delete the folder and export "
                "again."
            )
    listed = {name for shards in manifest.values() for name in shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in listed:
            problems.append(f"{path} is not of this export. Remove it.")
    return problems


class _CheckTask(NamedTuple):
    path: str
    expected: ShardResult


def _check_shard(task: _CheckTask) -> str | None:
    """Says what is wrong with a shard."""
    try:
        found = read.summarize(task.path, webdataset.FORMAT)
    except BuildError as error:
        return str(error)
    if found != task.expected:
        return (
            f"{task.path} holds {found.num_examples} samples of digest {found.digest}, not the "
            f"{task.expected.num_examples} of digest {task.expected.digest} that the manifest "
            "names. It is of another export, or was changed: delete the folder and export again."
        )
    return None


def read_info(folder: epath.Path) -> dict[str, Split]:
    """Reads the `_info.json` of an export.

    Raises:
        MissingFileError: It is not there.
        BuildError: It cannot be understood.
    """
    found = _read_json(folder / INFO)
    try:
        return {
            name: Split(
                _count(split["num_samples"]),
                tuple(map(_file_name, split["filenames"])),
                tuple(map(_count, split["shard_lengths"])),
            )
            for name, split in found["splits"].items()
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(folder / INFO, error) from error


def read_manifest(folder: epath.Path) -> Manifest:
    """Reads the manifest of an export.

    Raises:
        MissingFileError: It is not there.
        BuildError: It cannot be understood.
    """
    found = _read_json(folder / shard_writing.MANIFEST)
    try:
        splits = {
            split: {
                _file_name(name): ShardResult(
                    _count(result["num_examples"]), _count(result["num_bytes"]), result["digest"]
                )
                for name, result in shards.items()
            }
            for split, shards in found["splits"].items()
        }
        return Manifest(splits, found.get("identity"))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(folder / shard_writing.MANIFEST, error) from error


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number, found {value!r:.50}")
    return value


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not value.endswith(".tar") or "/" in value:
        raise ValueError(f"expected the name of a tar, found {value!r:.50}")
    return value


def _malformed(path: epath.Path, error: Exception) -> BuildError:
    return BuildError(
        f"{path} has not the form that an export gives it ({type(error).__name__}: {error}). "
        "Delete the folder and export again."
    )


def _read_json(path: epath.Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(
            f"{path} is not there: {path.parent} is no export, or not a whole one. Export again."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _malformed(path, error) from error

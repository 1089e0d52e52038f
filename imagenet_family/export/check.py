"""Checks an export of WebDataset tars against its `_info.json` and its manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from imagenet_family import progress
from imagenet_family.build import processes
from imagenet_family.shards import check_shard, manifest, webdataset
from imagenet_family.shards.digest import ShardResult, count
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, is_local, join

INFO = "_info.json"
"""Beside the shards: what timm reads of them."""


def absolute(folder: PathLike) -> epath.Path:
    """Gives the full path of the folder of an export."""
    # Links are followed: what is renamed to the folder's name has to be on its file system.
    return epath.Path(os.path.realpath(folder) if is_local(folder) else folder)


class Split(NamedTuple):
    """What `_info.json` says of a split."""

    num_samples: int
    shards: tuple[str, ...]
    lengths: tuple[int, ...]


def check_webdataset(
    output_dir: PathLike, *, workers: int | None = None, show_progress: bool = True
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
    info, recorded = read_info(folder), manifest.read(folder).splits
    problems = _compare(folder, info, recorded)
    tasks = [
        (join(folder, name), expected)
        for shards in recorded.values()
        for name, expected in shards.items()
    ]
    num_bytes = sum(expected.num_bytes for _, expected in tasks)
    with (
        processes.WorkerPool(_check_shard, workers) as pool,
        progress.bytes_bar("Checking", num_bytes, enabled=show_progress) as bar,
    ):
        pool.expect(num_bytes, len(tasks))
        for (_, expected), problem in pool(tasks):
            problems += [problem] if problem else []
            bar.update(expected.num_bytes)
    return problems


def _compare(folder: PathLike, info: Mapping[str, Split], recorded: manifest.Splits) -> list[str]:
    problems = []
    written = {
        name: (tuple(shards), tuple(result.num_examples for result in shards.values()))
        for name, shards in recorded.items()
    }
    if written != {name: (split.shards, split.lengths) for name, split in info.items()}:
        problems.append(
            f"{folder}: {INFO} and {manifest.NAME} do not name the same shards with the "
            "same numbers of samples. One of them was changed: delete the folder and export again."
        )
    for name, split in info.items():
        if split.num_samples != sum(split.lengths):
            problems.append(
                f"{join(folder, INFO)}: split {name!r} has {split.num_samples} samples, but "
                f"{sum(split.lengths)} in its shards. It was changed: delete the folder and export "
                "again."
            )
    listed = {name for shards in recorded.values() for name in shards}
    for name in files.listing(folder):
        if name.endswith(".tar") and not name.startswith(".") and name not in listed:
            problems.append(f"{join(folder, name)} is not of this export. Remove it.")
    return problems


def _check_shard(task: tuple[str, ShardResult]) -> str | None:
    """Says what is wrong with a shard."""
    path, expected = task
    return check_shard(path, webdataset.FORMAT, expected).problem


def read_info(folder: PathLike) -> dict[str, Split]:
    """Reads the `_info.json` of an export.

    Raises:
        MissingFileError: It is not there.
        BuildError: It cannot be understood.
    """
    return manifest.read_json(join(folder, INFO), _parse_info)


def _parse_info(found: Any) -> dict[str, Split]:
    return {
        name: Split(
            count(split["num_samples"]),
            tuple(map(_file_name, split["filenames"])),
            tuple(map(count, split["shard_lengths"])),
        )
        for name, split in found["splits"].items()
    }


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not value.endswith(".tar") or "/" in value:
        raise ValueError(f"expected the name of a tar, found {value!r:.50}")
    return value

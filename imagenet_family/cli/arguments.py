"""Arguments that several commands have, with TFDS's names, and what they mean."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagenet_family
from imagenet_family.cli import interrupts
from imagenet_family.errors import UsageError
from imagenet_family.storage.paths import is_local, user_path

if TYPE_CHECKING:
    from imagenet_family.build.processes import WorkerPool
    from imagenet_family.build.staging import ShardTask
    from imagenet_family.datasets.builder import ArchiveBuilder
    from imagenet_family.shards.digest import ShardResult

_NAMES = ", ".join(imagenet_family.DATASETS)


def add_names(parser: argparse.ArgumentParser) -> None:
    """Adds the datasets to work on."""
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME[/CONFIG][:VERSION]",
        help=f"datasets: {_NAMES}, or the Python file of your own; all configs if none is given",
    )


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds the folders that TFDS works with."""
    for name, text in (
        ("--data_dir", "where datasets are prepared (~/tensorflow_datasets)"),
        ("--manual_dir", "where the archives are (<data_dir>/downloads/manual)"),
        ("--download_dir", "where downloads and saved indexes are kept (<data_dir>/downloads)"),
    ):
        parser.add_argument(name, type=path, help=text)
    parser.add_argument(
        "--no_verify_checksums",
        action="store_true",
        help="do not check the sha256 of files that are downloaded, or put into manual_dir instead",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds the number of processes."""
    parser.add_argument(
        "--workers",
        type=positive,
        help="processes that work at once ($IMAGENET_FAMILY_WORKERS, or one for each core)",
    )


def worker_pool(
    args: argparse.Namespace, *, early: bool = True
) -> WorkerPool[ShardTask, ShardResult]:
    """Makes the processes that write shards, for all datasets of a command.

    Args:
        args: Parsed arguments with folders and workers.
        early: Whether they start at once if the archives are large, so that they get ready while
            TFDS is imported.
    """
    with interrupts.held_back():
        from imagenet_family.build import processes, staging

    pool = processes.WorkerPool(staging.ensure_shard, args.workers)
    if early and args.manual_dir and is_local(args.manual_dir):
        with contextlib.suppress(OSError):  # which is told when the archives are looked for
            size = sum(file.stat().st_size for file in Path(args.manual_dir).iterdir())
            alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
            pool.expect(size, alone=alone)
    return pool


def positive(text: str) -> int:
    """Reads a positive number."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def path(text: str) -> str:
    """Reads a folder or a file, of this machine or of an object store; `~` is the home folder."""
    try:
        return user_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def import_tfds() -> None:
    """Imports TFDS; Ctrl-C meanwhile is not lost.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    with interrupts.held_back():
        import tensorflow_datasets  # noqa: F401


def builders(args: argparse.Namespace, **kwargs: Any) -> list[ArchiveBuilder]:
    """Makes the builders of the datasets that are named.

    Args:
        args: Parsed arguments with `names`, folders and workers.
        **kwargs: Further arguments of `by_name.builders`.

    Raises:
        UsageError: There is no such dataset, config or version.
        BuildError: A dataset is prepared, but its description cannot be read.
    """
    import_tfds()
    from imagenet_family.datasets import by_name

    kwargs["data_dir"] = args.data_dir
    kwargs["workers"] = args.workers
    kwargs["verify_checksums"] = False if args.no_verify_checksums else None
    return [builder for name in args.names for builder in by_name.builders(name, **kwargs)]

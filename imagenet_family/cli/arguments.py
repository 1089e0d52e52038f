"""Arguments that several commands have, with TFDS's names, and what they mean."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagenet_family
from imagenet_family.errors import UsageError

if TYPE_CHECKING:
    from imagenet_family.builder import ArchiveBuilder
    from imagenet_family.runners import WorkerPool

_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>[\d.*]+))?")
_NAMES = ", ".join(imagenet_family.DATASETS)


def add_names(parser: argparse.ArgumentParser) -> None:
    """Adds the datasets to work on."""
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME[/CONFIG][:VERSION]",
        help=f"datasets: {_NAMES}; all configs if none is given",
    )


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Adds the folders that TFDS works with."""
    for name, text in (
        ("--data_dir", "where datasets are prepared (~/tensorflow_datasets)"),
        ("--manual_dir", "where the archives are (<data_dir>/downloads/manual)"),
        ("--download_dir", "where downloads and saved indexes are kept (<data_dir>/downloads)"),
    ):
        parser.add_argument(name, type=folder, help=text)
    parser.add_argument(
        "--no_verify_checksums",
        action="store_true",
        help="do not check the sha256 of downloaded files",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds the number of processes."""
    parser.add_argument(
        "--workers",
        type=positive,
        help="processes that work at once ($IMAGENET_FAMILY_WORKERS, or one for each core)",
    )


def worker_pool(args: argparse.Namespace, *, early: bool = True) -> WorkerPool:
    """Makes the processes that write shards, for all datasets of a command.

    Args:
        args: Parsed arguments with folders and workers.
        early: Whether they start at once if the archives are large, so that they get ready while
            TFDS is imported.
    """
    from imagenet_family import remote, runners, staging

    pool = runners.WorkerPool(staging.ensure_shard, args.workers)
    if early and args.manual_dir and remote.is_local(args.manual_dir):
        with contextlib.suppress(OSError):  # which is told when the archives are looked for
            size = sum(path.stat().st_size for path in Path(args.manual_dir).iterdir())
            alone = threading.active_count() == 1 and "tensorflow" not in sys.modules
            pool.expect(size, alone=alone)
    return pool


def positive(text: str) -> int:
    """Reads a positive number."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def folder(text: str) -> str:
    """Reads a folder, of this machine or of an object store."""
    from etils import epath

    try:
        epath.Path(text)
    except KeyError as error:
        message = f"there is no kind of storage {error.args[0]!r}: give a folder, gs:// or s3://"
        raise argparse.ArgumentTypeError(message) from error
    return text


def builders(args: argparse.Namespace, **kwargs: Any) -> list[ArchiveBuilder]:
    """Makes the builders of the datasets that are named.

    Args:
        args: Parsed arguments with `names`, folders and workers.
        **kwargs: Further arguments of each builder.

    Raises:
        UsageError: There is no such dataset, config or version.
    """
    import tensorflow_datasets as tfds

    made = []
    for text in args.names:
        match = _NAME.fullmatch(text)
        if match is None or match["name"] not in imagenet_family.DATASETS:
            raise UsageError(f"There is no dataset {text!r}; the datasets are {_NAMES}.")
        builder_cls = tfds.builder_cls(match["name"])
        configs = [match["config"]] if match["config"] else list(builder_cls.builder_configs)
        if match["config"] and match["config"] not in builder_cls.builder_configs:
            raise UsageError(
                f"{match['name']} has no config {match['config']!r}; it has "
                f"{', '.join(builder_cls.builder_configs) or 'none'}."
            )
        for config in configs or [None]:
            try:
                builder = builder_cls(
                    config=config,
                    version=match["version"],
                    data_dir=args.data_dir,
                    workers=args.workers,
                    verify_checksums=False if args.no_verify_checksums else None,
                    **kwargs,
                )
            except AssertionError as error:  # TFDS's word for a version that does not exist
                raise UsageError(str(error)) from error
            made.append(builder)
    return made

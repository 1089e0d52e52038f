"""Writes a dataset as WebDataset tars, as timm's imagenet-1k-wds is, straight from the archives.

An export that was stopped goes on where it was: run the same command again.

Examples:
  imagenet-family export-wds imagenet2012 --manual_dir /archives --output_dir /data/imagenet-1k-wds
  imagenet-family export-wds imagenet_v2/topimages --output_dir /data/v2 --from_prepared
  imagenet-family export-wds --check /data/imagenet-1k-wds
"""

from __future__ import annotations

import argparse

from imagenet_family.cli import arguments
from imagenet_family.errors import UsageError
from imagenet_family.storage.paths import PathLike


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `imagenet-family export-wds`."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME[/CONFIG][:VERSION]", help="the dataset to write"
    )
    parser.add_argument("--output_dir", type=arguments.path, help="the folder to make")
    parser.add_argument("--splits", help="comma-separated; all if not given")
    arguments.add_folders(parser)
    arguments.add_workers(parser)
    parser.add_argument(
        "--from_prepared",
        action="store_true",
        help="read the prepared dataset in data_dir, also one of stock TFDS, not the archives",
    )
    parser.add_argument(
        "--num_shards", type=arguments.positive, help="shards of each split (as in TFDS)"
    )
    parser.add_argument(
        "--shard_width",
        type=arguments.positive,
        help="digits of a shard's index (those of the largest one)",
    )
    parser.add_argument(
        "--flush", action="store_true", help="wait for the disk, against a loss of power"
    )
    parser.add_argument(
        "--check", type=arguments.path, metavar="OUT", help="check an export instead"
    )


def run(args: argparse.Namespace) -> int:
    """Runs `imagenet-family export-wds`."""
    if args.check is not None:
        if args.names or args.output_dir:
            raise UsageError("--check takes the folder of an export and no dataset.")
        return _check(args.check, args.workers)
    if len(args.names) != 1 or not args.output_dir:
        raise UsageError("Name one dataset, and --output_dir; or --check and a finished export.")
    with arguments.worker_pool(args, early=not args.from_prepared) as pool:
        builders = arguments.builders(args, flush=args.flush, pool=pool)
        if len(builders) > 1:
            raise UsageError(
                f"{args.names[0]} has several configs; name one of "
                f"{', '.join(f'{b.name}/{b.builder_config.name}' for b in builders)}."
            )
        from imagenet_family.export import webdataset

        output = webdataset.export_webdataset(
            builders[0],
            args.output_dir,
            splits=args.splits and [name.strip() for name in args.splits.split(",")],
            num_shards=args.num_shards,
            shard_width=args.shard_width,
            from_prepared=args.from_prepared,
            manual_dir=args.manual_dir,
            download_dir=args.download_dir,
        )
    _report(output)
    return 0


def _report(folder: PathLike) -> None:
    """Prints what an export holds, a line a split."""
    from imagenet_family.export import check

    output = check.absolute(folder)
    for split, info in check.read_info(output).items():
        shards = info.shards
        some = shards[0] if len(shards) == 1 else f"{shards[0]} … {shards[-1]}"
        print(
            f"{split}: {_count(info.num_samples, 'sample')}, {_count(len(shards), 'shard')}, "
            f"{output}/{some}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _check(folder: str, workers: int | None) -> int:
    from imagenet_family.export import check

    problems = check.check_webdataset(folder, workers=workers)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{folder}: {_count(len(problems), 'problem')}")
        return 1
    _report(folder)
    print(f"{folder}: all is well")
    return 0

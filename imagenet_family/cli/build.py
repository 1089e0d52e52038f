"""Builds datasets from the archives, as `tfds build` does, on all cores.

A build that was stopped goes on where it was: run the same command again.

Examples:
  imagenet-family build imagenet_v2/threshold-0.7
  imagenet-family build imagenet2012 --manual_dir /archives --file_format array_record
  imagenet-family build imagenet2012 --manual_dir /archives --dry_run
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from imagenet_family.build import preflight
from imagenet_family.cli import arguments
from imagenet_family.errors import BuildError, UsageError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from imagenet_family.build.build_plan import BuildPlan
    from imagenet_family.build.processes import WorkerPool
    from imagenet_family.build.staging import ShardTask
    from imagenet_family.datasets.builder import ArchiveBuilder
    from imagenet_family.shards.digest import ShardResult


# What file formats need that need not be installed.
_PACKAGES = {"array_record": "array_record", "parquet": "pyarrow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `imagenet-family build`."""
    arguments.add_names(parser)
    arguments.add_folders(parser)
    arguments.add_workers(parser)
    parser.add_argument("--file_format", help="tfrecord (default), array_record, parquet, ...")
    parser.add_argument("--num_shards", type=arguments.positive, help="shards of each split")
    parser.add_argument("--max_shard_size_mb", type=arguments.positive, help="as in tfds build")
    parser.add_argument(
        "--max_examples_per_split", type=arguments.positive, help="only so many, for a try"
    )
    parser.add_argument(
        "--ignore_duplicates", action="store_true", help="keep the first of images of one name"
    )
    parser.add_argument(
        "--beam_pipeline_options",
        help="write the shards with Apache Beam, as tfds build does: runner=FlinkRunner,…",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="delete a prepared dataset and build it again"
    )
    parser.add_argument(
        "--flush", action="store_true", help="wait for the disk, against a loss of power"
    )
    parser.add_argument(
        "--fail_if_exists", action="store_true", help="stop if a dataset is already prepared"
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="only print what would be built; downloads and indexes of archives are kept",
    )


def run(args: argparse.Namespace) -> int:
    """Runs `imagenet-family build`."""
    early = not (args.dry_run or args.beam_pipeline_options)
    with arguments.worker_pool(args, early=early) as pool:
        return _build(args, pool)


def _build(args: argparse.Namespace, pool: WorkerPool[ShardTask, ShardResult]) -> int:
    arguments.import_tfds()
    import tensorflow_datasets as tfds

    config = {
        "manual_dir": args.manual_dir,
        "max_examples_per_split": args.max_examples_per_split,
        "num_shards": args.num_shards,
        "ignore_duplicates": args.ignore_duplicates,
        "max_shard_size": args.max_shard_size_mb and args.max_shard_size_mb << 20,
        "download_mode": tfds.GenerateMode.REUSE_CACHE_IF_EXISTS if args.overwrite else None,
        "beam_options": _beam_options(args.beam_pipeline_options),
    }
    download_config = tfds.download.DownloadConfig(
        **{name: value for name, value in config.items() if value is not None}
    )
    made = arguments.builders(
        args,
        file_format=_file_format(args.file_format),
        flush=args.flush,
        pool=pool,
        overwrite=args.overwrite and not (args.dry_run or args.fail_if_exists),
    )
    for builder in made:
        if args.fail_if_exists and builder.is_prepared():
            raise BuildError(f"{builder.data_dir} exists already, and --fail_if_exists is given.")
        if builder.is_prepared() and not args.overwrite:
            would = "; nothing would be written" if args.dry_run else ""
            print(f"{builder.data_dir}: prepared already{would}. --overwrite builds it anew.")
            if args.dry_run:
                continue
        if args.dry_run:
            plan = builder.plan(download_dir=args.download_dir, download_config=download_config)
            _print_plan(plan)
            preflight.check(plan.folder, plan.estimate.needed, plan.workers)
            continue
        builder.on_plan = functools.partial(_print_plan, file=sys.stdout)
        with quiet_tfds():
            builder.download_and_prepare(
                download_dir=args.download_dir, download_config=download_config
            )
        report(builder)
    return 0


def _file_format(chosen: str | None) -> str | None:
    from tensorflow_datasets.core import file_adapters

    from imagenet_family import tfds_internals

    formats = [file_format.value for file_format in file_adapters.FileFormat]
    if chosen not in (None, *formats):
        raise UsageError(f"There is no file format {chosen!r}; there are {', '.join(formats)}.")
    tfds_internals.check_writable(chosen)
    package = _PACKAGES.get(chosen or "")
    if package and importlib.util.find_spec(package) is None:
        raise UsageError(
            f"The file format {chosen!r} needs the Python package {package}, which is not "
            "installed. Install it, or choose another format."
        )
    return chosen


def _beam_options(flags: str | None) -> PipelineOptions | None:
    """Reads `name=value,name=value`, as `tfds build` does."""
    if not flags:
        return None
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([f"--{flag}" for flag in flags.split(",")])


def _print_plan(plan: BuildPlan, file: TextIO | None = None) -> None:
    print(plan, file=file, flush=True)


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Keeps what TFDS prints of its own out of the output, which says the same and knows more."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def report(builder: ArchiveBuilder) -> None:
    """Prints what a prepared dataset holds, a line a split."""
    for split in builder.info.splits.values():
        print(
            f"{builder.info.full_name} {split.name}: {split.num_examples:,} examples, "
            f"{split.num_shards} shard{'' if split.num_shards == 1 else 's'}, "
            f"{split.num_bytes}, {builder.data_dir}"
        )
    sys.stdout.flush()

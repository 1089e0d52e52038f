"""Writes the file names of a dataset, for a model's predictions to be filled in.

One file a dataset, such as imagenet_v2_topimages.csv: a column file_name and an empty column
prediction, for a class id from 0 to 999 or a wnid. A column top5 instead, with five of them
separated by blanks, gives top-5 accuracy too.

Example:
  imagenet-family predictions-template imagenet_v2/topimages imagenet2012 --output_dir predictions
"""

from __future__ import annotations

import argparse

from imagenet_family.cli import arguments
from imagenet_family.errors import BuildError
from imagenet_family.storage import files
from imagenet_family.storage.paths import join


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `imagenet-family predictions-template`."""
    arguments.add_names(parser)
    arguments.add_folders(parser)
    parser.add_argument(
        "--output_dir", type=arguments.path, default=".", help="where to write (here)"
    )
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="csv (default)")


def run(args: argparse.Namespace) -> int:
    """Runs `imagenet-family predictions-template`."""
    arguments.import_tfds()
    from imagenet_family import evaluation

    splits = evaluation.read_splits(
        args.names,
        data_dir=args.data_dir,
        manual_dir=args.manual_dir,
        download_dir=args.download_dir,
        verify_checksums=False if args.no_verify_checksums else None,
    )
    # ImageNet-M is a part of the validation split of the same dataset.
    names: dict[str, dict[str, None]] = {}
    for split in splits:
        names.setdefault(split.dataset, {}).update(dict.fromkeys(split.labels.file_name))
    for dataset, file_names in names.items():
        path = join(args.output_dir, f"{dataset.replace('/', '_')}.{args.format}")
        try:
            files.make_folder(args.output_dir)
        except OSError as error:
            raise BuildError(f"{path} cannot be written: {error}.") from error
        evaluation.write_template(path, sorted(file_names))
        print(f"{path}: {len(file_names):,} images of {dataset}")
    return 0

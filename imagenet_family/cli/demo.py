"""Builds every dataset from the small fake archives that come with the package.

It prints what came out and saves a picture of the first examples of every dataset. Nothing is
downloaded, and nothing is written outside the output folder.

Example:
  imagenet-family demo --output_dir /tmp/imagenet_family_demo
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import imagenet_family
from imagenet_family.cli import arguments
from imagenet_family.cli.build import quiet_tfds, report
from imagenet_family.examples import images
from imagenet_family.labels import classes
from imagenet_family.shards import read_records
from imagenet_family.storage import files
from imagenet_family.storage.paths import join
from imagenet_family.storage.resources import resource_path

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from imagenet_family.datasets.builder import ArchiveBuilder

_COLUMNS = 6
_TILE = 128
_CAPTION = 30
_PICTURE = "examples.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `imagenet-family demo`."""
    parser.add_argument(
        "--output_dir",
        type=arguments.path,
        help="where to write; a new temporary folder if not given",
    )
    arguments.add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `imagenet-family demo`."""
    arguments.import_tfds()
    import tensorflow_datasets as tfds
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # that the fakes are not whole is no news here
    folder = args.output_dir or tempfile.mkdtemp(prefix="imagenet_family_demo_")
    manual_dir = resource_path("dummy_data")
    print(f"Building every dataset from the fake archives in {manual_dir}\n")
    args.names, args.data_dir, args.no_verify_checksums = imagenet_family.DATASETS, folder, True
    prepared = arguments.builders(args)
    start = time.perf_counter()
    for builder in prepared:
        with quiet_tfds():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    manual_dir=manual_dir, try_download_gcs=False
                )
            )
        report(builder)
    print(f"\n{len(prepared)} datasets in {time.perf_counter() - start:.1f} s")
    picture = join(folder, _PICTURE)
    png = io.BytesIO()
    _grid(prepared).save(png, "PNG")
    files.write_output(picture, png.getvalue())
    print(f"Their first examples: {picture}")
    last = prepared[-1]
    split = next(iter(last.info.splits))
    print(f"Load one: tfds.load({last.config_name!r}, {split=}, data_dir={folder!r})")
    return 0


def _grid(prepared: list[ArchiveBuilder]) -> Image.Image:
    """Draws the first examples of each split, a row a split, each with its label."""
    from PIL import Image, ImageDraw

    splits = [(builder, split) for builder in prepared for split in builder.info.splits]
    row_height = _TILE + 2 * _CAPTION
    grid = Image.new("RGB", (_COLUMNS * (_TILE + 8), len(splits) * row_height), "white")
    draw = ImageDraw.Draw(grid)
    for row, (builder, split) in enumerate(splits):
        top = row * row_height
        draw.text((6, top + 10), f"{builder.info.full_name}  {split}", fill="black")
        for column, (image, caption) in zip(
            range(_COLUMNS), _examples(builder, split), strict=False
        ):
            tile = Image.fromarray(image)
            tile.thumbnail((_TILE, _TILE))
            left = column * (_TILE + 8) + 4
            grid.paste(tile, (left, top + _CAPTION))
            draw.text((left, top + _CAPTION + _TILE + 4), caption[:20], fill="black")
    return grid


def _examples(builder: ArchiveBuilder, split: str) -> Iterator[tuple[np.ndarray, str]]:
    """Reads `(uint8 image, name of the label)` of a prepared split, in order."""
    from tensorflow_datasets.proto import tf_example_pb2

    info = builder.info
    for path in info.splits[split].filepaths:
        for record in read_records(path, info.file_format.value):
            feature = tf_example_pb2.Example.FromString(record).features.feature
            label_name = "label" if "label" in feature else "original_label"
            label = feature[label_name].int64_list.value[0]
            caption = classes.class_names()[label] if label >= 0 else "(no label)"
            yield images.decode(feature["image"].bytes_list.value[0]), caption

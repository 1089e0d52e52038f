"""Measures models on datasets: predictions in, numbers with intervals and a report out.

Labels come from the prepared datasets in data_dir or from the archives in manual_dir; no image is
read for them. Predictions are CSV, JSON lines, Parquet or NPZ files with a column file_name and one
of prediction, top5 and logits; `imagenet-family predictions-template` writes the file names. Files
of one MODEL are taken together: one for each dataset, or one for all. A FILE without a name is a
model of its own, called as the file is.

Examples:
  imagenet-family evaluate imagenet2012 --predictions val.csv
  imagenet-family evaluate imagenet2012 imagenet_v2/matched-frequency --manual_dir /archives
      --predictions resnet50=val.csv resnet50=v2.csv vit=vit.npz --report report.html
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagenet_family import DATASETS
from imagenet_family.cli import arguments
from imagenet_family.errors import UsageError
from imagenet_family.storage.files import write_output
from imagenet_family.storage.paths import name_of

if TYPE_CHECKING:
    from imagenet_family.evaluation import PredictionFile

_MODEL_AND_FILE = re.compile(r"(?P<model>[^=/\\]+)=(?P<path>.+)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `imagenet-family evaluate`."""
    arguments.add_names(parser)
    parser.add_argument(
        "--predictions",
        nargs="+",
        action="extend",
        type=_predictions,
        required=True,
        metavar="[MODEL=]FILE",
        help="prediction files, each with the name of its model",
    )
    arguments.add_folders(parser)
    parser.add_argument(
        "--report",
        type=arguments.path,
        metavar="HTML",
        help="write a report, one file to open or send",
    )
    parser.add_argument("--json", type=arguments.path, metavar="JSON", help="write all numbers")


def run(args: argparse.Namespace) -> int:
    """Runs `imagenet-family evaluate`."""
    arguments.import_tfds()
    from imagenet_family import evaluation
    from imagenet_family.evaluation import report, summary

    if args.report:
        report.check_packages()
    files = read_files(args.predictions)
    splits = evaluation.read_splits(
        args.names,
        data_dir=args.data_dir,
        manual_dir=args.manual_dir,
        download_dir=args.download_dir,
        verify_checksums=False if args.no_verify_checksums else None,
    )
    predictions = {model: evaluation.match(model, each, splits) for model, each in files.items()}
    found = evaluation.measure(splits, predictions)
    # The files first: who reads the table may stop reading, as `head` does.
    if args.json:
        text = json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
        write_output(args.json, text.encode())
    if args.report:
        evaluation.write_report(args.report, found, splits)
    print(summary.as_text(found))
    if args.report:
        print(f"\nReport: {args.report}")
    return 0


def read_files(texts: Sequence[str]) -> dict[str, list[PredictionFile]]:
    """Reads the files of `--predictions`, by model.

    Raises:
        UsageError: A file without a model is called as another one, or as a model before it.
        ImagenetFamilyError: A file is missing or damaged.
    """
    from imagenet_family import evaluation

    files: dict[str, list[PredictionFile]] = {}
    for text in dict.fromkeys(texts):
        named, path = _model_and_file(text)
        model = named or Path(name_of(path).removesuffix(".gz")).stem
        if not named and model in files:
            raise UsageError(
                f"{text}: a model is called {model!r} already. Give files their model's name: "
                "--predictions MODEL=FILE."
            )
        read = evaluation.PredictionFile(path, evaluation.read_predictions(path))
        files.setdefault(model, []).append(read)
    return files


def _predictions(text: str) -> str:
    if _is_dataset(text):
        raise argparse.ArgumentTypeError(
            f"{text} is a dataset: name datasets before --predictions, which takes all that follows"
        )
    model, file = _model_and_file(text)
    file = arguments.path(file)
    return f"{model}={file}" if model else file


def _is_dataset(text: str) -> bool:
    name = text.partition(":")[0]
    if name.partition("/")[0] not in DATASETS:
        return name.endswith(".py")
    from imagenet_family.datasets import catalogue

    return name in DATASETS or name in catalogue.all_splits()


def _model_and_file(text: str) -> tuple[str | None, str]:
    match = _MODEL_AND_FILE.fullmatch(text)
    return (match["model"], match["path"]) if match else (None, text)

"""Which predictions belong to which split: a model may have one file for all, or one for each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation.label_sources import LabelledSplit
from imagenet_family.labels.classes import validation_image_names
from imagenet_family.metrics.label_columns import some
from imagenet_family.metrics.predictions import Predictions


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionFile:
    """Predictions with the file that they come from, for messages."""

    path: str
    predictions: Predictions


def match(
    model: str, files: Sequence[PredictionFile], splits: Sequence[LabelledSplit]
) -> list[Predictions]:
    """Gives a model's predictions on each split, in the order of its labels.

    A split is matched with the file that has all of its images, the one with most classes an image
    if there are several; if there is none, with all files together. Files that have an image in
    common must agree on it, but a file for one config of ImageNetV2 is not compared with those for
    another, which may have other images of the same names.

    A file without names has the predictions of a split in the order of its sorted file names: of
    the only one that has as many images.

    Args:
        model: Name of the model, for messages.
        files: Its predictions.
        splits: The splits.

    Raises:
        EvaluationError: An image has no prediction, or several that differ; or a file has
            predictions for images that none of the splits has, or for no split of as many images,
            or for several.
    """
    tables = [_Table(file, _names(model, file, splits)) for file in files]
    _check_names(model, tables, splits)
    matched = [_match(model, tables, split) for split in splits]
    for table in tables:
        if not table.used:
            raise EvaluationError(
                f"{table.path}: none of its {len(table.row_of):,} images, such as "
                f"{some(list(table.row_of)[:1])}, is in {', '.join(s.title for s in splits)}, or "
                "other files have all images there. Name the dataset that it is for, or remove it."
            )
    return matched


def _names(model: str, file: PredictionFile, splits: Sequence[LabelledSplit]) -> Sequence[str]:
    """Gives the file name of each of a file's predictions."""
    if file.predictions.file_names is not None:
        return file.predictions.file_names
    count = len(file.predictions)
    # Several datasets have the same validation images.
    found = {tuple(sorted(s.labels.file_name)) for s in splits if len(s.labels) == count}
    if len(found) != 1:
        sizes = ", ".join(f"{split.title} ({len(split.labels):,})" for split in splits)
        raise EvaluationError(
            f"{file.path}: {count:,} predictions of {model!r} without file names, and "
            f"{'several splits have' if found else 'no split has'} so many images: {sizes}. Write "
            "the file names too, as in `imagenet-family predictions-template`."
        )
    return found.pop()


class _Table:
    """A file with its rows by file name, and whether any split took predictions from it."""

    def __init__(self, file: PredictionFile, names: Sequence[str]) -> None:
        self.path = file.path
        self.top_k = file.predictions.top_k
        self.k = self.top_k.shape[1]
        self.row_of = {name: row for row, name in enumerate(names)}
        self.used = False


def _check_names(model: str, tables: Sequence[_Table], splits: Sequence[LabelledSplit]) -> None:
    # A dataset may have a part of the validation images: predictions for the rest are welcome.
    known = {name.decode() for name in validation_image_names().tolist()}
    for split in splits:
        known.update(split.labels.file_name)
    for table in tables:
        extra = [name for name in table.row_of if name not in known]
        if extra:
            raise EvaluationError(
                f"{table.path}: {len(extra):,} of the {len(table.row_of):,} predictions of "
                f"{model!r} are for images that are in none of "
                f"{', '.join(split.title for split in splits)}: {some(extra)}. Name the dataset "
                "that they are for as well, or remove them."
            )


def _match(model: str, tables: Sequence[_Table], split: LabelledSplit) -> Predictions:
    names = split.labels.file_name
    wanted = set(names)
    whole = [table for table in tables if wanted <= table.row_of.keys()]
    whole.sort(key=lambda table: table.k, reverse=True)
    parts = [t for t in tables if t not in whole and not wanted.isdisjoint(t.row_of)]
    chosen = whole if whole and split.name_space else whole + parts
    absent = wanted.difference(*(table.row_of for table in chosen))
    if absent:
        missing = [name for name in names if name in absent]
        raise EvaluationError(
            f"{model!r} has no prediction for {len(missing):,} of the {len(names):,} images of "
            f"{split.title}: {some(missing)}. Looked in {', '.join(t.path for t in tables)}. "
            "Predict every image; if a model's predictions are in several files, give them one "
            "name: --predictions MODEL=FILE MODEL=FILE."
        )
    k = whole[0].k if whole else min(table.k for table in parts)
    top_k = np.full((len(names), k), -1, np.int64)
    for table in chosen:
        table.used = True
        at = np.fromiter(map(table.row_of.get, names, itertools.repeat(-1)), np.int64, len(names))
        here = at >= 0
        values = table.top_k[at, :k]
        known = top_k[:, 0] >= 0
        differ = here & known & (top_k[:, : table.k] != values).any(axis=1)
        if differ.any():
            repeated = [names[row] for row in np.flatnonzero(differ)[:6].tolist()]
            raise EvaluationError(
                f"{model!r} has different predictions for {np.count_nonzero(differ):,} images of "
                f"{split.title} in {', '.join(t.path for t in chosen)}: {some(repeated)}. Give "
                "each image one prediction."
            )
        new = here & ~known
        top_k[new, : table.k] = values[new]
    return Predictions(top_k, names)

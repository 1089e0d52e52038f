"""Reads the reassessed labels (ReaL) of ImageNet's validation images."""

from __future__ import annotations

from typing import Any

import numpy as np

from imagenet_family.errors import LabelError
from imagenet_family.labels.classes import NUM_CLASSES, VALIDATION_PREFIX
from imagenet_family.labels.label_files import read_json
from imagenet_family.storage.paths import PathLike


def read_real(path: PathLike, names: np.ndarray) -> list[list[int]]:
    """Reads the ReaL labels (`real.json`) of validation images.

    Source: https://github.com/google-research/reassessed-imagenet.

    Args:
        path: The file: a list of class ids for each image, in the order of the image names.
        names: `S` (n,), names of validation images.

    Returns:
        n lists of class ids; an empty one for an image that no class fits.

    Raises:
        LabelError: The file is damaged or has no list for an image.
    """
    found = _lists(path)
    start = len(VALIDATION_PREFIX)
    numbers = [int(name[start : start + 8]) for name in names.tolist()]
    if numbers and max(numbers) > len(found):
        raise LabelError(
            f"{path}: it has labels for {len(found):,} images, but image {max(numbers):,} is in "
            "the archive. Take the published real.json."
        )
    return [found[number - 1] for number in numbers]


def count(path: PathLike, progress: bool) -> tuple[int, None]:
    """Counts the images that are listed; see `SourceFile`."""
    del progress
    return len(_lists(path)), None


def _lists(path: PathLike) -> list[list[int]]:
    found = read_json(path, Any, "the ReaL labels, a list of class ids for each image")
    if not isinstance(found, list):
        raise LabelError(
            f"{path}: expected a list of lists of class ids, found {found!r:.50}. Take the "
            "published real.json."
        )
    for number, ids in enumerate(found, 1):
        if not _is_id_list(ids):
            raise LabelError(
                f"{path}: image {number}: expected a list of class ids from 0 to "
                f"{NUM_CLASSES - 1}, found {ids!r:.50}. Take the published real.json."
            )
    return found


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int and 0 <= i < NUM_CLASSES for i in value)

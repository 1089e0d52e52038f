"""Reads the label files that others made for ImageNet's validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from etils import epath

from imagenet_family.errors import LabelError
from imagenet_family.labels.classes import NUM_CLASSES, wnid_to_id

KINDS = ("correct", "wrong", "unclear")
_PREFIX = "ILSVRC2012_val_"  # names of other images are candidates for ImageNetV2

_MULTILABEL_FORM = "the multi-label annotations, a list of wnids of each kind for each image"
_REAL_FORM = "the ReaL labels, a list of class ids for each image"

LabelLists = Mapping[str, list[int]]  # the class ids of each of KINDS


class _Wnids(msgspec.Struct):
    """The wnids of an image, by `KINDS`."""

    correct: list[str] = []
    wrong: list[str] = []
    unclear: list[str] = []


class _MultilabelFile(msgspec.Struct):
    """What is read of `human_accuracy_v3.0.0.json`.

    Most of its 200 MB are the answers of single models and people. They are skipped: as Python
    objects they would take a gigabyte.
    """

    initial_annots: dict[str, _Wnids]
    problematic_images: dict[str, msgspec.Raw]
    imagenet_m: list[str]


@dataclasses.dataclass(frozen=True)
class Multilabel:
    """The multi-label annotations of ImageNet's validation images.

    Attributes:
        images: Class ids of each kind in `KINDS`, by image name, in the file's order.
        problematic: Names of images that are to be left out of an accuracy.
        imagenet_m: Names of the images of ImageNet-M.
    """

    images: Mapping[bytes, LabelLists]
    problematic: frozenset[bytes]
    imagenet_m: tuple[bytes, ...]


def read(path: epath.Path) -> bytes:
    """Gives the content of a label file.

    Raises:
        LabelError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise LabelError(
            f"{path}: the file cannot be read ({error}). Change its permissions, or get it again."
        ) from error


def read_multilabel(path: epath.Path) -> Multilabel:
    """Reads `human_accuracy_v3.0.0.json`.

    Source: https://github.com/modestyachts/evaluating_machine_accuracy_on_imagenet.

    Raises:
        LabelError: The file is damaged or names an unknown wnid.
    """
    found = _load(path, _MultilabelFile, _MULTILABEL_FORM)
    try:
        images = {
            name.encode(): {kind: _ids(getattr(wnids, kind)) for kind in KINDS}
            for name, wnids in found.initial_annots.items()
            if name.startswith(_PREFIX)
        }
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    problematic = frozenset(name.encode() for name in found.problematic_images)
    imagenet_m = tuple(name.encode() for name in found.imagenet_m)
    strangers = [name.decode() for name in imagenet_m if name not in images]
    if strangers:
        raise LabelError(
            f"{path}: {len(strangers)} images of `imagenet_m` have no annotation in "
            f"`initial_annots`, such as {strangers[0]}. Take the file that the release names."
        )
    return Multilabel(images, problematic, imagenet_m)


def _ids(wnids: list[str]) -> list[int]:
    known = wnid_to_id()
    try:
        return [known[wnid] for wnid in wnids]
    except KeyError as error:
        raise LabelError(f"{error.args[0]!r:.50} is not a wnid of ILSVRC-2012.") from None


def read_real(path: epath.Path, names: np.ndarray) -> list[list[int]]:
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
    found = _load(path, Any, _REAL_FORM)
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
    numbers = [int(name[len(_PREFIX) : len(_PREFIX) + 8]) for name in names.tolist()]
    if numbers and max(numbers) > len(found):
        raise LabelError(
            f"{path}: it has labels for {len(found):,} images, but image {max(numbers):,} is in "
            "the archive. Take the published real.json."
        )
    return [found[number - 1] for number in numbers]


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int and 0 <= i < NUM_CLASSES for i in value)


def _load(path: epath.Path, kind: Any, form: str) -> Any:
    data = read(path)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise LabelError(
            f"{path}: this JSON has not the form of {form} ({error}). Take the file that the "
            "release names."
        ) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise LabelError(f"{path}: it is no whole JSON file ({error}). Get it again.") from error

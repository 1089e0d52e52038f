"""Reads the multi-label annotations of ImageNet's validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from imagenet_family.errors import LabelError
from imagenet_family.labels.classes import VALIDATION_PREFIX, wnid_to_id
from imagenet_family.labels.label_files import read_json
from imagenet_family.storage.paths import PathLike

KINDS = ("correct", "wrong", "unclear")

_FORM = "the multi-label annotations, a list of wnids of each kind for each image"

LabelLists = Mapping[str, list[int]]  # the class ids of each of KINDS


class _Wnids(msgspec.Struct):
    """The wnids of an image, by `KINDS`."""

    correct: list[str] = []
    wrong: list[str] = []
    unclear: list[str] = []


class _File(msgspec.Struct):
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


def read_multilabel(path: PathLike) -> Multilabel:
    """Reads `human_accuracy_v3.0.0.json`.

    Source: https://github.com/modestyachts/evaluating_machine_accuracy_on_imagenet.

    Raises:
        LabelError: The file is damaged or names an unknown wnid.
    """
    found = read_json(path, _File, _FORM)
    try:
        images = {
            name.encode(): {kind: _ids(getattr(wnids, kind)) for kind in KINDS}
            for name, wnids in found.initial_annots.items()
            if name.startswith(VALIDATION_PREFIX)
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


def count(path: PathLike, progress: bool) -> tuple[int, None]:
    """Counts the images that are annotated; see `SourceFile`."""
    del progress
    return len(read_multilabel(path).images), None

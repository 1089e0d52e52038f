"""The 1,000 ILSVRC-2012 classes and the labels of its validation images.

All datasets of the family share this label space: class ids 0 to 999 are the positions of the
WordNet ids (wnids) in ascending order. The class names are WordNet's lemmas of each synset.

Nothing here imports TensorFlow or TensorFlow Datasets; the lists are data files of this package.
"""

import functools
import importlib.resources
import types
from collections.abc import Mapping, Sequence

import numpy as np

from imagenet_family.errors import LabelError

NUM_CLASSES = 1000
NUM_VALIDATION_IMAGES = 50_000
VALIDATION_PREFIX = "ILSVRC2012_val_"
_NUM_NAMED = 5


@functools.cache
def wnids() -> tuple[str, ...]:
    """Returns the 1,000 wnids in ascending order; the class id of a wnid is its position."""
    return tuple(wnid for wnid, _ in _classes())


@functools.cache
def wnid_to_id() -> Mapping[str, int]:
    """Returns the class id, 0 to 999, of every wnid, as a read-only mapping."""
    return types.MappingProxyType({wnid: i for i, wnid in enumerate(wnids())})


@functools.cache
def devkit_wnids() -> tuple[str, ...]:
    """Returns the 1,000 wnids in the order of the challenge's development kit.

    There a class has an `ILSVRC2012_ID` from 1 to 1000, its position here and one. It is not the
    class id of the datasets, but the numbering of `ILSVRC2012_validation_ground_truth.txt`.
    """
    return tuple(_read("devkit_wnids.txt").split())


@functools.cache
def class_names() -> tuple[str, ...]:
    """Returns what WordNet calls each class, by class id: its lemmas, joined by `', '`.

    Two synsets may have the same name (the bird and the machine are both `crane`), so a name
    does not identify a class: use the class id or the wnid for that.
    """
    return tuple(name for _, name in _classes())


@functools.cache
def validation_image_names() -> np.ndarray:
    """Returns the 50,000 names of the validation images in alphabetical order, dtype `S28`."""
    names = np.array(
        [f"{VALIDATION_PREFIX}{i:08d}.JPEG" for i in range(1, NUM_VALIDATION_IMAGES + 1)],
        dtype=np.bytes_,
    )
    names.flags.writeable = False
    return names


@functools.cache
def validation_labels() -> np.ndarray:
    """Returns the class ids of the validation images in alphabetical order of their names.

    Returns:
        A read-only int64 array of shape (50000,): element i is the label of
        `validation_image_names()[i]`.
    """
    labels = np.array(_read("validation_labels.txt").split(), dtype=np.int64)
    labels.flags.writeable = False
    return labels


def validation_labels_for(names: Sequence[str] | Sequence[bytes] | np.ndarray) -> np.ndarray:
    """Returns the class id of each of the named validation images.

    The label is looked up by the image's own name. TensorFlow Datasets instead pairs the sorted
    member names of the archive with the list of labels, so that one member too many or too few
    moves every label after it to another image. Both agree on the published archive, and on any
    archive whose images are numbered 1 to n without a gap; where they differ, the image's own
    name is right.

    Args:
        names: `(n,)` image names such as `ILSVRC2012_val_00000001.JPEG`, in any order; strings,
            bytes, or an array of either.

    Returns:
        An int64 array of shape (n,).

    Raises:
        LabelError: A name is not that of a validation image, or occurs more than once.
    """
    names = np.asarray(names)
    if names.size == 0:
        return np.zeros(0, dtype=np.int64)
    if names.dtype.kind == "U":
        names = np.char.encode(names, "utf-8")
    if names.dtype.kind != "S" or names.ndim != 1:
        raise LabelError(
            "Validation labels are looked up by image name: expected a one-dimensional list of "
            f"names, found shape {names.shape} of dtype {names.dtype}. Pass the names of the "
            "members of ILSVRC2012_img_val.tar."
        )
    known = validation_image_names()
    numbers = np.minimum(np.searchsorted(known, names), len(known) - 1)
    strangers = names[known[numbers] != names]
    if strangers.size:
        raise LabelError(
            f"{strangers.size:,} of {names.size:,} names are not ILSVRC-2012 validation images "
            f"(ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG): "
            f"{_some(strangers)}. Take the published ILSVRC2012_img_val.tar, or remove these "
            "members from the archive."
        )
    counts = np.bincount(numbers, minlength=len(known))
    repeated = known[counts > 1]
    if repeated.size:
        raise LabelError(
            f"{repeated.size:,} validation images occur more than once: {_some(repeated)}. "
            "Take the published ILSVRC2012_img_val.tar, where every name occurs once."
        )
    return validation_labels()[numbers]


def _some(names: np.ndarray) -> str:
    """Returns the first few names for a message."""
    shown = ", ".join(repr(name.decode("utf-8", "replace")) for name in names[:_NUM_NAMED])
    return shown + (", …" if names.size > _NUM_NAMED else "")


@functools.cache
def _classes() -> tuple[tuple[str, str], ...]:
    """Returns the (wnid, name) of each class, in order of the class ids."""
    _, *lines = _read("classes.tsv").splitlines()
    return tuple((wnid, name) for wnid, name in (line.split("\t") for line in lines))


def _read(name: str) -> str:
    return (importlib.resources.files("imagenet_family.labels") / "data" / name).read_text("utf-8")

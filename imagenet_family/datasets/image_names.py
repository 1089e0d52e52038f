"""The published names of ImageNet's images, out of the names that copies give them.

An example's file name is also its key and decides its place in the dataset, so a copy with other
names would give another dataset under the same name and version, even if every count is right.
What is known for sure to be a published name with something added becomes that name; anything
else is refused.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from imagenet_family.errors import LabelError

_WNID = re.compile(rb"n\d{8}")
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_SUFFIX = b".JPEG"
_NUM_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Naming:
    """How the images of one split are named: `<stem>_<number>.JPEG`.

    Attributes:
        stem: What stands before the number; a `#` stands for any digit.
        example: A published name, for messages.
        images: What the images are called, for messages.
    """

    stem: bytes
    example: str
    images: str

    def published(self, names: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
        r"""Gives the published name of every image.

        Copies are known that add a wnid (`n01440764_10026_n01440764.JPEG`, on Hugging Face), and
        archives made on Windows whose names have the folder in them (`n01440764\n01440764_1.JPEG`).

        Args:
            names: `S` (n,), base names of members.
            place: Says where the image of a row lies, for messages.

        Returns:
            `S` (n,), the same array where all names are as published.

        Raises:
            LabelError: A name is none of a published image, however it is read.
        """
        strange = np.flatnonzero(~self._are_plain(names))
        if not len(strange):
            return names
        found = [self.read(name) for name in names[strange].tolist()]
        wrong = [int(row) for row, name in zip(strange, found, strict=True) if name is None]
        if wrong:
            shown = ", ".join(
                repr(names[row].decode("utf-8", "replace")) for row in wrong[:_NUM_NAMED]
            )
            raise LabelError(
                f"{place(wrong[0])}: expected the name of one of the {self.images}, such as "
                f"{self.example}, found another one ({len(wrong):,} of {len(names):,} images: "
                f"{shown}{', …' if len(wrong) > _NUM_NAMED else ''}). Names decide what an image "
                "is called in the dataset and where it stands. Is it the archive of this name? "
                "Take the published one, or give the images their published names."
            )
        widths = [len(name) for name in found if name is not None]
        renamed = names.astype(f"S{max(names.dtype.itemsize, *widths)}")
        renamed[strange] = found
        return renamed

    def _are_plain(self, names: np.ndarray) -> np.ndarray:
        """Tells which names are as published; bool (n,)."""
        # With a zero for each digit there are but a few forms, one for each length of the number.
        width = names.dtype.itemsize
        forms = np.frombuffer(names.tobytes().translate(_ZEROS), names.dtype)
        plain = np.zeros(len(names), bool)
        left = np.arange(len(names))
        for digits in range(1, width - len(self.stem + b"_" + _SUFFIX) + 1):
            form = self.stem.replace(b"#", b"0").translate(_ZEROS) + b"_" + b"0" * digits + _SUFFIX
            same = forms[left] == form
            plain[left[same]] = True
            left = left[~same]
            if not len(left):
                break
        return plain

    def read(self, name: bytes) -> bytes | None:
        """Gives the published name in a name; None if there is none for sure."""
        base = name.rpartition(b"\\")[2]
        stem = re.escape(self.stem).replace(rb"\#", rb"\d").replace(b"#", rb"\d")
        match = re.fullmatch(rb"(%b)_(\d+)(?:_(n\d{8}))?\.JPEG" % stem, base)
        if match is None:
            return None
        image, number, wnid = match.groups()
        # The wnid that is added is the image's own, where its name tells that.
        if wnid is not None and _WNID.fullmatch(image) and wnid != image:
            return None
        return image + b"_" + number + _SUFFIX


TRAIN = Naming(b"n########", "n01440764_10026.JPEG", "train images")
VALIDATION = Naming(b"ILSVRC2012_val", "ILSVRC2012_val_00000001.JPEG", "validation images")
TEST = Naming(b"ILSVRC2012_test", "ILSVRC2012_test_00000001.JPEG", "test images")


def any_published(names: np.ndarray) -> np.ndarray:
    """Gives the published name of every image that surely has one, and the others as they are.

    Args:
        names: `S` (n,), base names of members of any of the archives.
    """
    found = [
        next((p for naming in (TRAIN, VALIDATION, TEST) if (p := naming.read(name))), name)
        for name in names.tolist()
    ]
    return np.array(found, "S")

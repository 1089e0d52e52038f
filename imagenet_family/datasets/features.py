"""The feature connectors that the datasets share."""

from __future__ import annotations

import tensorflow_datasets as tfds

from imagenet_family.labels import classes


def image() -> tfds.features.Image:
    """RGB or grayscale JPEG; decodes to uint8 (height, width, 3)."""
    return tfds.features.Image(encoding_format="jpeg")


def label() -> tfds.features.ClassLabel:
    """One of the 1,000 classes, named by wnid; an int64 from 0 to 999, or -1 where unknown."""
    return tfds.features.ClassLabel(names=list(classes.wnids()))


def label_list() -> tfds.features.Sequence:
    """Any number of the 1,000 classes; int64 (n,)."""
    return tfds.features.Sequence(label())


def labelled_image(image: tfds.features.Image) -> tfds.features.FeaturesDict:
    """Image, label and file name."""
    return tfds.features.FeaturesDict(
        {"image": image, "label": label(), "file_name": tfds.features.Text()}
    )

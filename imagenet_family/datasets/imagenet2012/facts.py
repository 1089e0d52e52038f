"""What is to be known of imagenet2012 without TFDS."""

from __future__ import annotations

import dataclasses

from imagenet_family.datasets import ilsvrc
from imagenet_family.datasets.dataset import Dataset, Split

DATASET = Dataset(
    {
        "": {
            "train": Split((ilsvrc.TRAIN_FILE,), ilsvrc.TRAIN_EXAMPLES, optional=True),
            "validation": dataclasses.replace(ilsvrc.VALIDATION_SPLIT, optional=True),
            "test": dataclasses.replace(ilsvrc.TEST_SPLIT, optional=True),
        }
    },
    shard_name="imagenet1k",  # as in timm's copy
)

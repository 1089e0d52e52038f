"""What is to be known of imagenet2012_subset without TFDS."""

from __future__ import annotations

import dataclasses

from imagenet_family.datasets import ilsvrc
from imagenet_family.datasets.dataset import Dataset, SourceFile, Split
from imagenet_family.labels.classes import NUM_CLASSES

LISTS = {"1pct": "1percent.txt", "10pct": "10percent.txt"}
_EXAMPLES = {"1pct": 12_811, "10pct": 128_116}


def _splits(config: str) -> dict[str, Split]:
    examples = _EXAMPLES[config]
    listed = SourceFile(LISTS[config], ilsvrc.count_listed, examples, NUM_CLASSES)
    return {
        "train": Split((ilsvrc.TRAIN_FILE, listed), examples),
        "validation": ilsvrc.VALIDATION_SPLIT,
        "test": dataclasses.replace(ilsvrc.TEST_SPLIT, optional=True, default=False),
    }


DATASET = Dataset({config: _splits(config) for config in LISTS})

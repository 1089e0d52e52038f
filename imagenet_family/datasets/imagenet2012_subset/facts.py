"""What is to be known of imagenet2012_subset without TFDS."""

from __future__ import annotations

import dataclasses

from imagenet_family.datasets import ilsvrc
from imagenet_family.datasets.dataset import Dataset, SourceFile, Split
from imagenet_family.errors import LabelError
from imagenet_family.labels import classes, label_files
from imagenet_family.storage.paths import PathLike

LISTS = {"1pct": "1percent.txt", "10pct": "10percent.txt"}
_EXAMPLES = {"1pct": 12_811, "10pct": 128_116}


def _count(path: PathLike, progress: bool) -> tuple[int, int]:
    del progress
    names = label_files.read(path).split()
    found = {name.partition(b"_")[0].decode("latin-1") for name in names}
    unknown = sorted(found.difference(classes.wnid_to_id()))
    if unknown:
        raise LabelError(
            f"{path}: expected names of train images, found one that begins with "
            f"{unknown[0]!r:.50}, which is no wnid of ILSVRC-2012. Get it again."
        )
    return len(set(names)), len(found)


def _splits(config: str) -> dict[str, Split]:
    examples = _EXAMPLES[config]
    listed = SourceFile(LISTS[config], _count, examples, classes.NUM_CLASSES)
    return {
        "train": Split((ilsvrc.TRAIN_FILE, listed), examples),
        "validation": ilsvrc.VALIDATION_SPLIT,
        "test": dataclasses.replace(ilsvrc.TEST_SPLIT, optional=True, default=False),
    }


DATASET = Dataset({config: _splits(config) for config in LISTS})

"""What the published datasets hold: their splits, and how many examples are in each.

Sources: the papers of the datasets and the catalogue of TensorFlow Datasets
(https://www.tensorflow.org/datasets/catalog/overview).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from imagenet_family.examples.table import Examples
from imagenet_family.labels.classes import NUM_CLASSES

TRAIN_EXAMPLES = 1_281_167
VALIDATION_EXAMPLES = 50_000
TEST_EXAMPLES = 100_000
V2_EXAMPLES = 10_000
MULTILABEL_EXAMPLES = 20_000
IMAGENET_M_EXAMPLES = 68
SUBSET_EXAMPLES = {"1pct": 12_811, "10pct": 128_116}

_TRAIN = {"train": TRAIN_EXAMPLES}
_VALIDATION = {"validation": VALIDATION_EXAMPLES}
_TEST = {"test": TEST_EXAMPLES}

# By dataset and, where there is one, config.
SPLITS: Mapping[str, Mapping[str, int]] = {
    "imagenet2012": _TRAIN | _VALIDATION | _TEST,
    "imagenet2012_multilabel": {
        "validation": MULTILABEL_EXAMPLES,
        "imagenet_m": IMAGENET_M_EXAMPLES,
    },
    "imagenet2012_real": _VALIDATION,
    **{
        f"imagenet2012_subset/{config}": {"train": count} | _VALIDATION | _TEST
        for config, count in SUBSET_EXAMPLES.items()
    },
    **{
        f"imagenet_v2/{config}": {"test": V2_EXAMPLES}
        for config in ("matched-frequency", "threshold-0.7", "topimages")
    },
}
_LABEL = "label"

# What models are measured on: the other splits are for training, or have no labels.
MEASURED_SPLITS: Mapping[str, tuple[str, ...]] = {
    "imagenet2012": ("validation",),
    "imagenet2012_multilabel": ("validation", "imagenet_m"),
    "imagenet2012_real": ("validation",),
    "imagenet2012_subset": ("validation",),
    "imagenet_v2": ("test",),
}


def differences(dataset: str, splits: Mapping[str, Examples]) -> list[str]:
    """Says in words where splits have not the published number of examples and classes.

    Args:
        dataset: Dataset and config, with or without version, such as `'imagenet_v2/topimages'`.
        splits: The splits that are to be built.
    """
    known = next((SPLITS[name] for name in SPLITS if f"{dataset}/".startswith(f"{name}/")), {})
    found = []
    for split, examples in splits.items():
        labels = examples.columns.get(_LABEL, np.zeros(0, np.int64))
        classes = len(np.unique(labels[labels >= 0]))  # none where labels are secret, or lists
        expected = known.get(split, len(examples))
        if len(examples) != expected or 0 < classes < NUM_CLASSES:
            of_all = f" of {NUM_CLASSES:,} classes" if classes else ""
            of_some = f" of {classes:,}" if classes else ""
            found.append(
                f"{examples.source}: split {split!r} of {dataset} is not whole: expected "
                f"{expected:,} examples{of_all} as published, found {len(examples):,}{of_some}."
            )
    return found

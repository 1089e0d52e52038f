"""What is to be known of imagenet2012_multilabel without TFDS."""

from __future__ import annotations

from imagenet_family.datasets import ilsvrc
from imagenet_family.datasets.dataset import Dataset, SourceFile, Split
from imagenet_family.datasets.imagenet2012_multilabel import annotations, metrics
from imagenet_family.metrics.accuracy import STANDARD

_EXAMPLES = 20_000
_FILES = (
    ilsvrc.VALIDATION_FILE,
    SourceFile("human_accuracy_v3.0.0.json", annotations.count, _EXAMPLES),
)

DATASET = Dataset(
    {
        "": {
            "validation": Split(
                _FILES,
                _EXAMPLES,
                metrics=(metrics.MULTILABEL, metrics.MULTILABEL_STRICT, *STANDARD),
            ),
            "imagenet_m": Split(_FILES, 68, metrics=(metrics.IMAGENET_M,), title="ImageNet-M"),
        }
    },
    public={
        "ImagenetM": metrics.ImagenetM,
        "Mistake": metrics.Mistake,
        "imagenet_m": metrics.imagenet_m,
        "multilabel_accuracy": metrics.multilabel_accuracy,
    },
)

"""What is to be known of imagenet2012_real without TFDS."""

from __future__ import annotations

from imagenet_family.datasets import ilsvrc
from imagenet_family.datasets.dataset import Dataset, SourceFile, Split
from imagenet_family.datasets.imagenet2012_real import annotations
from imagenet_family.datasets.imagenet2012_real.metrics import REAL_ACCURACY, real_accuracy
from imagenet_family.metrics.accuracy import STANDARD

_REAL = SourceFile("real.json", annotations.count, ilsvrc.VALIDATION_EXAMPLES)

DATASET = Dataset(
    {
        "": {
            "validation": Split(
                (ilsvrc.VALIDATION_FILE, _REAL),
                ilsvrc.VALIDATION_EXAMPLES,
                metrics=(REAL_ACCURACY, *STANDARD),
                whole_validation=True,
            )
        }
    },
    public={"real_accuracy": real_accuracy},
)

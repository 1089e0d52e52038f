"""What is to be known of ImageNetV2 without TFDS."""

from __future__ import annotations

from imagenet_family.datasets import counting
from imagenet_family.datasets.dataset import Dataset, Shift, SourceFile, Split
from imagenet_family.datasets.imagenet_v2.gap import RECHT_2019, V2Gap, v2_gap
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics.accuracy import STANDARD
from imagenet_family.metrics.robustness import Line

ARCHIVES = {
    "matched-frequency": "imagenetv2-matched-frequency.tar.gz",
    "threshold-0.7": "imagenetv2-threshold0.7.tar.gz",
    "topimages": "imagenetv2-top-images.tar.gz",
}
_EXAMPLES = 10_000

_SHIFT = Shift(
    "ImageNetV2",
    v2_gap,
    RECHT_2019,
    "● matched-frequency, ▲ threshold-0.7, ■ topimages, with intervals. Solid: the line that Recht "
    "et al. (ICML 2019) published for top-1 accuracy, on matched-frequency only, fitted to models "
    "of up to 83 % on validation.",
)


def _test(config: str, marker: str, line: Line | None = None) -> dict[str, Split]:
    archive = SourceFile(ARCHIVES[config], counting.folders, _EXAMPLES, NUM_CLASSES)
    split = Split(
        (archive,),
        _EXAMPLES,
        metrics=STANDARD,
        names_of_config=True,
        shift=_SHIFT,
        line=line,
        marker=marker,
    )
    return {"test": split}


DATASET = Dataset(
    {
        "matched-frequency": _test("matched-frequency", "o", RECHT_2019),
        "threshold-0.7": _test("threshold-0.7", "^"),
        "topimages": _test("topimages", "s"),
    },
    public={"RECHT_2019": RECHT_2019, "V2Gap": V2Gap, "v2_gap": v2_gap},
)

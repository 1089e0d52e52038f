"""What a metric is: which predictions are right, which images count, and how that is averaged.

Values are exact fractions rounded once to a float, so they do not depend on the order of the
images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics import intervals
from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.predictions import align
from imagenet_family.metrics.results import Accuracy, ClassAccuracy, Exclusion, Measured, PerClass


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """What a metric makes of each image, before anything is averaged.

    Attributes:
        metric: Name of the metric.
        predicted: int64 of shape (n,), the best class of each image.
        correct: bool of shape (n,), whether the prediction is right.
        counted: bool of shape (n,), whether the image counts.
        reason: Why images are not counted.
    """

    metric: str
    predicted: np.ndarray
    correct: np.ndarray
    counted: np.ndarray
    reason: str = ""


def over_images(labels: Labels, hits: Hits, level: float = LEVEL) -> Accuracy:
    """Returns the share of the counted images that are right."""
    n = int(np.count_nonzero(hits.counted))
    if not n:
        raise EvaluationError(
            f"No image is left for {hits.metric}: all {len(labels):,} are excluded ({hits.reason})."
        )
    correct = int(np.count_nonzero(hits.correct & hits.counted))
    interval = intervals.wilson(correct, n, level)
    return Accuracy(hits.metric, correct / n, interval, n, correct, _excluded(labels, hits))


def over_classes(labels: Labels, hits: Hits, level: float = LEVEL) -> ClassAccuracy:
    """Returns the mean over classes of the share of the counted images that are right."""
    images = over_images(labels, hits, level)
    per_class = count_classes(labels, hits)
    present = per_class.total > 0
    interval = intervals.class_bootstrap(per_class.accuracy[present], level)
    return ClassAccuracy(
        hits.metric,
        float(mean_over_classes(per_class)),
        interval,
        images.n,
        int(np.count_nonzero(present)),
        per_class,
        images,
        images.excluded,
    )


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name, as in `compare` and in what `measure` gives.
        title: What people call it, as in tables.
        right: Tells of each image whether the prediction is right, bool (n,), from the labels and
            the best classes, int64 (n, k), in their order.
        average: Makes the result of what each image gives: `over_images`, `over_classes`, or a
            function of the same arguments that gives another `Measured`.
        counted: Tells of each image whether it counts, bool (n,); None if all do.
        reason: Why the others do not, in words.
        top_k: How many classes an image it looks at.
        difference: What people call it where two models are compared, which is always done with
            shares of images or classes; the title if empty.
        note: A sentence on what it counts, for a report.
    """

    name: str
    title: str
    right: Callable[[Labels, np.ndarray], np.ndarray]
    average: Callable[[Labels, Hits, float], Measured] = over_images
    counted: Callable[[Labels], np.ndarray] | None = None
    reason: str = ""
    top_k: int = 1
    difference: str = ""
    note: str = ""

    @property
    def difference_title(self) -> str:
        """What people call the difference of two models."""
        return self.difference or self.title

    def hits(self, labels: Labels, predictions: Any) -> Hits:
        """Returns what the metric makes of each image.

        Raises:
            EvaluationError: Labels and predictions do not fit, or have not what it needs.
        """
        top_k = align(labels, predictions)
        right = self.right(labels, top_k)
        counted = np.ones(len(labels), bool) if self.counted is None else self.counted(labels)
        return Hits(self.name, top_k[:, 0], right, counted, self.reason)

    def __call__(self, labels: Labels, predictions: Any, *, level: float = LEVEL) -> Any:
        """Measures predictions.

        Args:
            labels: The labels.
            predictions: Anything that `as_predictions` takes.
            level: Nominal coverage of the interval.

        Returns:
            What `average` gives: a result with `value`, `interval`, `n` and details.

        Raises:
            EvaluationError: Labels and predictions do not fit, or no image is counted.
        """
        return self.average(labels, self.hits(labels, predictions), level)


def count_classes(labels: Labels, hits: Hits) -> PerClass:
    """Counts right predictions and images of each class, by the original label."""
    right = labels.label[hits.counted & hits.correct]
    counted = labels.label[hits.counted]
    return PerClass(
        np.bincount(right, minlength=NUM_CLASSES), np.bincount(counted, minlength=NUM_CLASSES)
    )


def mean_over_classes(per_class: PerClass) -> Fraction:
    """Returns the mean over the classes that have images, as an exact fraction."""
    # Classes of one size share a denominator, and few sizes occur.
    sizes = np.unique(per_class.total[per_class.total > 0]).tolist()
    total = sum(
        (Fraction(int(per_class.correct[per_class.total == n].sum()), n) for n in sizes),
        Fraction(0),
    )
    return total / int(np.count_nonzero(per_class.total))


def _excluded(labels: Labels, hits: Hits) -> tuple[Exclusion, ...]:
    rows = np.nonzero(~hits.counted)[0].tolist()
    if not rows:
        return ()
    return (Exclusion(hits.reason, len(rows), tuple(labels.file_name[row] for row in rows)),)

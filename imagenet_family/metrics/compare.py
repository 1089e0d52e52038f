"""Two models on the same images."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.metrics import accuracy, intervals
from imagenet_family.metrics.accuracy import Hits
from imagenet_family.metrics.intervals import LEVEL, Interval
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.predictions import align
from imagenet_family.metrics.results import PerClass, Result


@dataclasses.dataclass(frozen=True)
class PairedDifference(Result):
    """How much better one model is than another on the same images.

    Attributes:
        metric: The metric that is compared.
        value: The first model's value minus the second's; for `imagenet_m`, of the shares of
            images without a mistake.
        interval: Its interval. It takes into account that both models see the same images, so it
            is narrower than what the two models' own intervals suggest.
        n: Number of images counted.
        only_first: Number of images that only the first model gets right.
        only_second: Number of images that only the second model gets right.
    """

    metric: str
    value: float
    interval: Interval
    n: int
    only_first: int
    only_second: int


_OVER_IMAGES: dict[str, Callable[[Labels, np.ndarray], Hits]] = {
    "top1": accuracy.top1_hits,
    "top5": accuracy.top5_hits,
    "imagenet_m": accuracy.imagenet_m_hits,
    "real_accuracy": accuracy.real_hits,
}
_OVER_CLASSES: dict[str, Callable[[Labels, np.ndarray], Hits]] = {
    "per_class_accuracy": accuracy.top1_hits,
    "multilabel_accuracy": accuracy.multilabel_hits,
    "multilabel_accuracy_strict": functools.partial(accuracy.multilabel_hits, strict=True),
}
METRICS = (*_OVER_IMAGES, *_OVER_CLASSES)


def compare(
    labels: Labels, first: Any, second: Any, metric: str = "top1", *, level: float = LEVEL
) -> PairedDifference:
    """Returns the difference of a metric between two models on the same images.

    Metrics over images have the Bonett-Price interval for paired proportions, metrics over
    classes a bootstrap over the classes of the difference within each class.

    Args:
        labels: The labels.
        first: The first model's predictions.
        second: The second model's predictions.
        metric: One of `METRICS`.
        level: Nominal coverage of the interval.

    Raises:
        EvaluationError: The metric is unknown, or the labels and predictions do not fit.
    """
    judge = (_OVER_IMAGES | _OVER_CLASSES).get(metric)
    if judge is None:
        raise EvaluationError(f"Unknown metric {metric!r}: expected one of {', '.join(METRICS)}.")
    hits = [judge(labels, align(labels, predictions)) for predictions in (first, second)]
    counted = hits[0].counted
    only_first = int(np.count_nonzero(counted & hits[0].correct & ~hits[1].correct))
    only_second = int(np.count_nonzero(counted & hits[1].correct & ~hits[0].correct))
    n = accuracy.over_images(labels, hits[0], level).n
    if metric in _OVER_IMAGES:
        value = (only_first - only_second) / n
        interval = intervals.paired_difference(only_first, only_second, n, level)
    else:
        classes = [accuracy.count_classes(labels, each) for each in hits]
        difference = PerClass(classes[0].correct - classes[1].correct, classes[0].total)
        value = float(accuracy.mean_over_classes(difference))
        present = difference.total > 0
        interval = intervals.class_bootstrap(difference.accuracy[present], level)
    return PairedDifference(metric, value, interval, n, only_first, only_second)

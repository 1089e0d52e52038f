"""Two models on the same images."""

import dataclasses
from typing import Any

import numpy as np

from imagenet_family.metrics import intervals
from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.metric import (
    Metric,
    count_classes,
    mean_over_classes,
    over_classes,
    over_images,
)
from imagenet_family.metrics.results import Measured, PerClass


@dataclasses.dataclass(frozen=True)
class PairedDifference(Measured):
    """How much better one model is than another on the same images.

    Attributes:
        metric: The metric that is compared.
        value: The first model's value minus the second's; for a metric that counts mistakes, of
            the shares of images without one.
        interval: Its interval. It takes into account that both models see the same images, so it
            is narrower than what the two models' own intervals suggest.
        n: Number of images counted.
        only_first: Number of images that only the first model gets right.
        only_second: Number of images that only the second model gets right.
    """

    only_first: int
    only_second: int


def compare(
    labels: Labels, first: Any, second: Any, metric: Metric, *, level: float = LEVEL
) -> PairedDifference:
    """Returns the difference of a metric between two models; see `evaluation.compare`."""
    hits = [metric.hits(labels, predictions) for predictions in (first, second)]
    counted = hits[0].counted
    only_first = int(np.count_nonzero(counted & hits[0].correct & ~hits[1].correct))
    only_second = int(np.count_nonzero(counted & hits[1].correct & ~hits[0].correct))
    n = over_images(labels, hits[0], level).n
    if metric.average is not over_classes:
        value = (only_first - only_second) / n
        interval = intervals.paired_difference(only_first, only_second, n, level)
    else:
        classes = [count_classes(labels, each) for each in hits]
        difference = PerClass(classes[0].correct - classes[1].correct, classes[0].total)
        value = float(mean_over_classes(difference))
        present = difference.total > 0
        interval = intervals.class_bootstrap(difference.accuracy[present], level)
    return PairedDifference(metric.name, value, interval, n, only_first, only_second)

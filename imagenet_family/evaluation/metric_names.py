"""The metrics of all datasets by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from imagenet_family.datasets import catalogue
from imagenet_family.errors import EvaluationError
from imagenet_family.metrics import compare as paired
from imagenet_family.metrics.accuracy import PER_CLASS, STANDARD
from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.metric import Metric


@functools.cache
def metrics() -> Mapping[str, Metric]:
    """Gives the metrics of all datasets by name."""
    found = {metric.name: metric for metric in (*STANDARD, PER_CLASS)}
    for splits in catalogue.all_splits().values():
        for split in splits.values():
            found.update((metric.name, metric) for metric in split.metrics)
    return found


def compare(
    labels: Labels,
    first: Any,
    second: Any,
    metric: str | Metric = "top1",
    *,
    level: float = LEVEL,
) -> paired.PairedDifference:
    """Returns the difference of a metric between two models on the same images.

    Metrics over images have the Bonett-Price interval for paired proportions, metrics over
    classes a bootstrap over the classes of the difference within each class.

    Args:
        labels: The labels.
        first: The first model's predictions.
        second: The second model's predictions.
        metric: One of `METRICS`, or a `Metric` of a dataset of your own.
        level: Nominal coverage of the interval.

    Raises:
        EvaluationError: The metric is unknown, or the labels and predictions do not fit.
    """
    if isinstance(metric, str):
        if metric not in metrics():
            raise EvaluationError(
                f"Unknown metric {metric!r}: expected one of {', '.join(metrics())}."
            )
        metric = metrics()[metric]
    return paired.compare(labels, first, second, metric, level=level)

"""Measure a model across the family: labels and predictions in, numbers with intervals out.

    labels = Labels.from_columns(columns)          # file names and labels of a split
    result = multilabel_accuracy(labels, {"ILSVRC2012_val_00000001.JPEG": 65, ...})
    result.value, result.interval, result.per_class.worst(10)

Predictions are class ids, wnids, or logits; `as_predictions` says in which shapes. `evaluate` runs
a model over whole datasets, and `write_report` makes a page of what comes out.

Metrics that are for one dataset, as `multilabel_accuracy`, stand in its folder and are found here.
"""

from typing import Any

from imagenet_family.datasets import catalogue
from imagenet_family.evaluation.label_sources import LabelledSplit, labels_of, read_splits
from imagenet_family.evaluation.matching import PredictionFile, match
from imagenet_family.evaluation.measuring import Evaluation, measure
from imagenet_family.evaluation.metric_names import compare, metrics
from imagenet_family.evaluation.prediction_files import read_predictions, write_template
from imagenet_family.evaluation.report import write_report
from imagenet_family.evaluation.run import evaluate
from imagenet_family.metrics.accuracy import confusion_pairs, per_class_accuracy, top1, top5
from imagenet_family.metrics.compare import PairedDifference
from imagenet_family.metrics.intervals import Interval
from imagenet_family.metrics.label_columns import Labels, LabelSets
from imagenet_family.metrics.metric import Metric
from imagenet_family.metrics.predictions import Predictions, as_predictions
from imagenet_family.metrics.results import (
    Accuracy,
    ClassAccuracy,
    ConfusionPair,
    Exclusion,
    PerClass,
)
from imagenet_family.metrics.robustness import EffectiveRobustness, Line, fit_line

__all__ = [  # and what the datasets add
    "METRICS",
    "Accuracy",
    "ClassAccuracy",
    "ConfusionPair",
    "EffectiveRobustness",
    "Evaluation",
    "Exclusion",
    "Interval",
    "LabelSets",
    "LabelledSplit",
    "Labels",
    "Line",
    "Metric",
    "PairedDifference",
    "PerClass",
    "PredictionFile",
    "Predictions",
    "as_predictions",
    "compare",
    "confusion_pairs",
    "evaluate",
    "fit_line",
    "labels_of",
    "match",
    "measure",
    "per_class_accuracy",
    "read_predictions",
    "read_splits",
    "top1",
    "top5",
    "write_report",
    "write_template",
]

METRICS = tuple(metrics())
"""The names of all metrics."""


def __getattr__(name: str) -> Any:
    """Gives the metrics and other things that are of one dataset, such as `real_accuracy`."""
    try:
        return catalogue.public()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *catalogue.public()])

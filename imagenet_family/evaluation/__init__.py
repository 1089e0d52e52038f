"""Measure a model across the family: labels and predictions in, numbers with intervals out.

    labels = Labels.from_columns(columns)          # file names and labels of a split
    result = multilabel_accuracy(labels, {"ILSVRC2012_val_00000001.JPEG": 65, ...})
    result.value, result.interval, result.per_class.worst(10)

Predictions are class ids, wnids, or logits; `as_predictions` says in which shapes. `evaluate` runs
a model over whole datasets, and `write_report` makes a page of what comes out.
"""

from imagenet_family.evaluation.label_sources import LabelledSplit, labels_of, read_splits
from imagenet_family.evaluation.matching import PredictionFile, match
from imagenet_family.evaluation.measuring import Evaluation, measure
from imagenet_family.evaluation.prediction_files import read_predictions, write_template
from imagenet_family.evaluation.report import write_report
from imagenet_family.evaluation.run import evaluate
from imagenet_family.metrics.accuracy import (
    confusion_pairs,
    imagenet_m,
    multilabel_accuracy,
    per_class_accuracy,
    real_accuracy,
    top1,
    top5,
)
from imagenet_family.metrics.compare import METRICS, PairedDifference, compare
from imagenet_family.metrics.intervals import Interval
from imagenet_family.metrics.label_columns import Labels, LabelSets
from imagenet_family.metrics.predictions import Predictions, as_predictions
from imagenet_family.metrics.results import (
    Accuracy,
    ClassAccuracy,
    ConfusionPair,
    Exclusion,
    ImagenetM,
    Mistake,
    PerClass,
)
from imagenet_family.metrics.robustness import (
    RECHT_2019,
    EffectiveRobustness,
    Line,
    V2Gap,
    fit_line,
    v2_gap,
)

__all__ = [
    "METRICS",
    "RECHT_2019",
    "Accuracy",
    "ClassAccuracy",
    "ConfusionPair",
    "EffectiveRobustness",
    "Evaluation",
    "Exclusion",
    "ImagenetM",
    "Interval",
    "LabelSets",
    "LabelledSplit",
    "Labels",
    "Line",
    "Mistake",
    "PairedDifference",
    "PerClass",
    "PredictionFile",
    "Predictions",
    "V2Gap",
    "as_predictions",
    "compare",
    "confusion_pairs",
    "evaluate",
    "fit_line",
    "imagenet_m",
    "labels_of",
    "match",
    "measure",
    "multilabel_accuracy",
    "per_class_accuracy",
    "read_predictions",
    "read_splits",
    "real_accuracy",
    "top1",
    "top5",
    "v2_gap",
    "write_report",
    "write_template",
]

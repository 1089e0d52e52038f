"""Multi-label accuracy, and the mistakes on ImageNet-M."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagenet_family.metrics import intervals, results
from imagenet_family.metrics.intervals import LEVEL, Interval
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.metric import Hits, Metric, over_classes
from imagenet_family.metrics.results import ClassAccuracy

_DATASET = "imagenet2012_multilabel"


@dataclasses.dataclass(frozen=True)
class Mistake(results.Mistake):
    """An image that a model gets wrong.

    Attributes:
        file_name: The image.
        label: Class id of the original ImageNet label.
        predicted: Class id that the model says.
        correct_multi_labels: Class ids that would be right.
        unclear_multi_labels: Class ids that would be let pass.
    """

    correct_multi_labels: tuple[int, ...]
    unclear_multi_labels: tuple[int, ...]

    @property
    def would_pass(self) -> Mapping[str, tuple[int, ...]]:
        """The class ids that would not be a mistake, by what they are called."""
        return {"right": self.correct_multi_labels, "unclear": self.unclear_multi_labels}


@dataclasses.dataclass(frozen=True)
class ImagenetM(results.MistakeCount):
    """Mistakes on ImageNet-M.

    Attributes:
        metric: `imagenet_m`.
        value: Number of mistakes.
        interval: Wilson's interval of the share of mistakes, times `n`.
        n: Number of images, 68 in the published set.
        mistakes: The mistakes, in the order of the labels.
    """

    mistakes: tuple[Mistake, ...]


def multilabel_accuracy(
    labels: Labels, predictions: Any, *, strict: bool = False, level: float = LEVEL
) -> ClassAccuracy:
    """Returns the multi-label accuracy: the mean over classes of the share of right predictions.

    Problematic images are left out. A prediction is right if it is among the correct labels or,
    unless `strict`, among those that the experts did not agree on. Images are grouped by their
    original label; one for which nothing is right, because the label sets are empty, counts as
    wrong. `over_images` of the result is the same without grouping.

    Shankar et al., "Evaluating Machine Accuracy on ImageNet", ICML 2020; labels corrected by
    Vasudevan et al., "When does dough become a bagel? Analyzing the remaining mistakes on
    ImageNet", arXiv 2205.04596.

    Args:
        labels: Labels of `imagenet2012_multilabel`.
        predictions: The predictions.
        strict: Count a prediction among the unclear labels as wrong. The papers are lenient.
        level: Nominal coverage of the intervals.
    """
    metric = MULTILABEL_STRICT if strict else MULTILABEL
    return metric(labels, predictions, level=level)


def imagenet_m(labels: Labels, predictions: Any, *, level: float = LEVEL) -> ImagenetM:
    """Returns the mistakes on ImageNet-M, the 68 images that the best models got wrong.

    A prediction is a mistake if it is neither among the correct nor among the unclear labels.

    Vasudevan et al., "When does dough become a bagel? Analyzing the remaining mistakes on
    ImageNet", arXiv 2205.04596.

    Args:
        labels: Labels of the split `imagenet_m` of `imagenet2012_multilabel`.
        predictions: The predictions for these images. From predictions for more images, take
            `predictions.select(labels.file_name)`.
        level: Nominal coverage of the interval.
    """
    return IMAGENET_M(labels, predictions, level=level)


def _is_correct(labels: Labels, top_k: np.ndarray) -> np.ndarray:
    return labels.column("correct_multi_labels", _DATASET).contain(top_k[:, 0])


def _is_let_pass(labels: Labels, top_k: np.ndarray) -> np.ndarray:
    correct = _is_correct(labels, top_k)
    return correct | labels.column("unclear_multi_labels", _DATASET).contain(top_k[:, 0])


def _is_clean(labels: Labels) -> np.ndarray:
    return ~labels.column("is_problematic", _DATASET)


def _mistakes(labels: Labels, hits: Hits, level: float = LEVEL) -> ImagenetM:
    rows = np.nonzero(~hits.correct)[0].tolist()
    mistakes = tuple(
        Mistake(
            labels.file_name[row],
            int(labels.label[row]),
            int(hits.predicted[row]),
            labels.column("correct_multi_labels", _DATASET).of(row),
            labels.column("unclear_multi_labels", _DATASET).of(row),
        )
        for row in rows
    )
    n = len(labels)
    share = intervals.wilson(len(rows), n, level)
    interval = Interval(share.low * n, share.high * n, share.method, level)
    return ImagenetM(hits.metric, len(rows), interval, n, mistakes)


_PROBLEMATIC = "problematic: not to be used for multi-label accuracy, say the experts"

MULTILABEL = Metric(
    "multilabel_accuracy",
    "multi-label",
    _is_let_pass,
    over_classes,
    _is_clean,
    _PROBLEMATIC,
    note="Multi-label accuracy is a mean over classes that counts labels on which the experts did "
    "not agree as right; strict, as wrong.",
)
MULTILABEL_STRICT = Metric(
    "multilabel_accuracy_strict",
    "strict multi-label",
    _is_correct,
    over_classes,
    _is_clean,
    _PROBLEMATIC,
)
IMAGENET_M = Metric(
    "imagenet_m",
    "mistakes",
    _is_let_pass,
    _mistakes,
    difference="images that are right",
)

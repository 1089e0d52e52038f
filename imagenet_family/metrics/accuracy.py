"""The metrics of every dataset whose images have one of the 1,000 classes each.

Each takes `labels`, a `Labels`, and `predictions`, anything that `as_predictions` takes; raises
EvaluationError where the two cannot be compared image by image; and returns a result with its
`value`, `interval`, `n` and details. Datasets with labels of their own have metrics of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.metric import Metric, over_classes
from imagenet_family.metrics.predictions import TOP_K, align
from imagenet_family.metrics.results import Accuracy, ClassAccuracy, ConfusionPair


def top1(labels: Labels, predictions: Any, *, level: float = LEVEL) -> Accuracy:
    """Returns the share of images whose label is the prediction.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", International Journal
    of Computer Vision 115, 2015; for ImageNetV2, Recht et al., "Do ImageNet Classifiers
    Generalize to ImageNet?", ICML 2019.
    """
    return TOP1(labels, predictions, level=level)


def top5(labels: Labels, predictions: Any, *, level: float = LEVEL) -> Accuracy:
    """Returns the share of images whose label is among the five best predictions.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", International Journal
    of Computer Vision 115, 2015.

    Raises:
        EvaluationError: The predictions have fewer than five classes an image.
    """
    return TOP5(labels, predictions, level=level)


def per_class_accuracy(labels: Labels, predictions: Any, *, level: float = LEVEL) -> ClassAccuracy:
    """Returns the top-1 accuracy of each class, and its mean over the classes with images."""
    return PER_CLASS(labels, predictions, level=level)


def confusion_pairs(labels: Labels, predictions: Any, n: int = 20) -> tuple[ConfusionPair, ...]:
    """Returns the most frequent mistakes, most frequent first, ties by the two class ids.

    Args:
        labels: The labels; `label` is taken for the truth.
        predictions: The predictions.
        n: How many pairs to return at most.
    """
    predicted = align(labels, predictions)[:, 0]
    wrong = predicted != labels.label
    counts = np.bincount(
        labels.label[wrong] * NUM_CLASSES + predicted[wrong], minlength=NUM_CLASSES**2
    )
    pairs = np.nonzero(counts)[0]
    order = pairs[np.argsort(-counts[pairs], kind="stable")][:n]
    totals = np.bincount(labels.label, minlength=NUM_CLASSES)
    return tuple(
        ConfusionPair(true, guess, int(counts[true * NUM_CLASSES + guess]), int(totals[true]))
        for true, guess in (divmod(pair, NUM_CLASSES) for pair in order.tolist())
    )


def _is_first(labels: Labels, top_k: np.ndarray) -> np.ndarray:
    right: np.ndarray = top_k[:, 0] == labels.label
    return right


def _is_in_five(labels: Labels, top_k: np.ndarray) -> np.ndarray:
    if top_k.shape[1] < TOP_K:
        raise EvaluationError(
            f"Top-5 accuracy needs five classes an image, best first, or logits: the predictions "
            f"have {top_k.shape[1]}."
        )
    right: np.ndarray = (top_k[:, :TOP_K] == labels.label[:, None]).any(axis=1)
    return right


TOP1 = Metric("top1", "top-1", _is_first)
TOP5 = Metric("top5", "top-5", _is_in_five, top_k=TOP_K)
PER_CLASS = Metric("per_class_accuracy", "mean over classes", _is_first, over_classes)
STANDARD = (TOP1, TOP5)
"""The metrics of a split whose images have one label each."""

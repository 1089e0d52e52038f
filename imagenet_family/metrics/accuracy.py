"""The numbers that the datasets of the family are for.

Every metric takes `labels`, a `Labels`, and `predictions`, anything that `as_predictions` takes;
raises EvaluationError where the two cannot be compared image by image; and returns a result with
its `value`, `interval`, `n` and details. Values are exact fractions rounded once to a float, so
they do not depend on the order of the images.
"""

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics import intervals
from imagenet_family.metrics.intervals import LEVEL, Interval
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.predictions import align
from imagenet_family.metrics.results import (
    Accuracy,
    ClassAccuracy,
    ConfusionPair,
    Exclusion,
    ImagenetM,
    Mistake,
    PerClass,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """What a metric makes of each image, before anything is averaged.

    Attributes:
        metric: Name of the metric.
        correct: bool of shape (n,), whether the prediction is right.
        counted: bool of shape (n,), whether the image counts.
        reason: Why images are not counted.
    """

    metric: str
    correct: np.ndarray
    counted: np.ndarray
    reason: str = ""


def top1(labels: Labels, predictions: Any, *, level: float = LEVEL) -> Accuracy:
    """Returns the share of images whose label is the prediction.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", International Journal
    of Computer Vision 115, 2015; for ImageNetV2, Recht et al., "Do ImageNet Classifiers
    Generalize to ImageNet?", ICML 2019.
    """
    return over_images(labels, top1_hits(labels, align(labels, predictions)), level)


def top5(labels: Labels, predictions: Any, *, level: float = LEVEL) -> Accuracy:
    """Returns the share of images whose label is among the five best predictions.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", International Journal
    of Computer Vision 115, 2015.

    Raises:
        EvaluationError: The predictions have fewer than five classes an image.
    """
    return over_images(labels, top5_hits(labels, align(labels, predictions)), level)


def per_class_accuracy(labels: Labels, predictions: Any, *, level: float = LEVEL) -> ClassAccuracy:
    """Returns the top-1 accuracy of each class, and its mean over the classes with images."""
    hits = top1_hits(labels, align(labels, predictions))
    return over_classes(labels, dataclasses.replace(hits, metric="per_class_accuracy"), level)


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
    top_k = align(labels, predictions)
    return over_classes(labels, multilabel_hits(labels, top_k, strict), level)


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
    predicted = align(labels, predictions)[:, 0]
    hits = imagenet_m_hits(labels, predicted[:, None])
    rows = np.nonzero(~hits.correct)[0].tolist()
    mistakes = tuple(
        Mistake(
            labels.file_name[row],
            int(labels.label[row]),
            int(predicted[row]),
            labels.correct_multi_labels.of(row),
            labels.unclear_multi_labels.of(row),
        )
        for row in rows
    )
    n = len(labels)
    share = intervals.wilson(len(rows), n, level)
    interval = Interval(share.low * n, share.high * n, share.method, level)
    return ImagenetM("imagenet_m", len(rows), interval, n, mistakes)


def real_accuracy(labels: Labels, predictions: Any, *, level: float = LEVEL) -> Accuracy:
    """Returns the share of images whose prediction is among their reassessed labels.

    Images without any reassessed label are left out.

    Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159.

    Args:
        labels: Labels of `imagenet2012_real`.
        predictions: The predictions.
        level: Nominal coverage of the interval.
    """
    return over_images(labels, real_hits(labels, align(labels, predictions)), level)


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


def top1_hits(labels: Labels, top_k: np.ndarray) -> Hits:
    """Returns what `top1` makes of each image; `top_k` is in the order of the labels."""
    return Hits("top1", top_k[:, 0] == labels.label, np.ones(len(labels), dtype=bool))


def top5_hits(labels: Labels, top_k: np.ndarray) -> Hits:
    """Returns what `top5` makes of each image; `top_k` is in the order of the labels."""
    if top_k.shape[1] < 5:
        raise EvaluationError(
            f"Top-5 accuracy needs five classes an image, best first, or logits: the predictions "
            f"have {top_k.shape[1]}."
        )
    correct = (top_k[:, :5] == labels.label[:, None]).any(axis=1)
    return Hits("top5", correct, np.ones(len(labels), dtype=bool))


def multilabel_hits(labels: Labels, top_k: np.ndarray, strict: bool = False) -> Hits:
    """Returns what `multilabel_accuracy` makes of each image."""
    correct = labels.column("correct_multi_labels").contain(top_k[:, 0])
    if not strict:
        correct |= labels.column("unclear_multi_labels").contain(top_k[:, 0])
    return Hits(
        "multilabel_accuracy_strict" if strict else "multilabel_accuracy",
        correct,
        ~labels.column("is_problematic"),
        "problematic: not to be used for multi-label accuracy, say the experts",
    )


def imagenet_m_hits(labels: Labels, top_k: np.ndarray) -> Hits:
    """Returns what `imagenet_m` makes of each image: all count."""
    correct = labels.column("correct_multi_labels").contain(top_k[:, 0])
    correct |= labels.column("unclear_multi_labels").contain(top_k[:, 0])
    return Hits("imagenet_m", correct, np.ones(len(labels), dtype=bool))


def real_hits(labels: Labels, top_k: np.ndarray) -> Hits:
    """Returns what `real_accuracy` makes of each image."""
    real = labels.column("real_label")
    return Hits(
        "real_accuracy",
        real.contain(top_k[:, 0]),
        real.sizes() > 0,
        "no reassessed label: no class was found to fit the image",
    )


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

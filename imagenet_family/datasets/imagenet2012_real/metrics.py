"""ReaL accuracy."""

from __future__ import annotations

from typing import Any

from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.label_columns import Labels, LabelSets
from imagenet_family.metrics.metric import Metric
from imagenet_family.metrics.results import Accuracy


def real_accuracy(labels: Labels, predictions: Any, *, level: float = LEVEL) -> Accuracy:
    """Returns the share of images whose prediction is among their reassessed labels.

    Images without any reassessed label are left out.

    Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159.

    Args:
        labels: Labels of `imagenet2012_real`.
        predictions: The predictions.
        level: Nominal coverage of the interval.
    """
    return REAL_ACCURACY(labels, predictions, level=level)


def _real(labels: Labels) -> LabelSets:
    return labels.column("real_label", "imagenet2012_real")


REAL_ACCURACY = Metric(
    "real_accuracy",
    "ReaL",
    right=lambda labels, top_k: _real(labels).contain(top_k[:, 0]),
    counted=lambda labels: _real(labels).sizes() > 0,
    reason="no reassessed label: no class was found to fit the image",
)

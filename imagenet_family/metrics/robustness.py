"""How much of its accuracy a model keeps on new images, and how much is to be expected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.metrics import intervals
from imagenet_family.metrics.intervals import Interval
from imagenet_family.metrics.results import Accuracy, Result


@dataclasses.dataclass(frozen=True)
class Line(Result):
    """The accuracy on a new test set that the accuracy on the validation set leads to expect.

    Attributes:
        slope: Slope of the line.
        intercept: Its value where the validation accuracy is 0 on the line's scale.
        scale: `linear` for shares between 0 and 1, or `logit` for log(share / (1 - share)).
        source: Where the line comes from.
    """

    slope: float
    intercept: float
    scale: str
    source: str

    def expected(self, validation: float) -> float:
        """Returns the expected share of images on the new set, for that on the validation set."""
        if self.scale == "linear":
            return self.slope * validation + self.intercept
        return _share(self.slope * _logit(validation) + self.intercept)


@dataclasses.dataclass(frozen=True)
class EffectiveRobustness(Result):
    """Accuracy on the new set beyond what is expected of a model this accurate on validation.

    Attributes:
        value: Accuracy on the new set minus the expected one.
        interval: Its interval, for the images only: the line is taken as known.
        n: Number of images of the new set.
        expected: The accuracy that the line leads to expect.
        line: The line.
    """

    value: float
    interval: Interval
    n: int
    expected: float
    line: Line


class Gap(Protocol):
    """Accuracy lost from the validation set to new images of its classes; a `Measured`."""

    @property
    def value(self) -> float:
        """Accuracy on validation minus accuracy on the new images."""
        ...

    @property
    def interval(self) -> Interval:
        """Its interval."""
        ...

    @property
    def validation(self) -> Accuracy:
        """The accuracy on validation."""
        ...

    @property
    def shifted(self) -> Accuracy:
        """The accuracy on the new images."""
        ...

    @property
    def effective_robustness(self) -> EffectiveRobustness | None:
        """What is beyond expectation; None if it is not known what to expect."""
        ...


def fit_line(validation: Sequence[float], shifted: Sequence[float], source: str) -> Line:
    """Fits the line of models that are known on both sets, by least squares of the logits.

    Taori et al., NeurIPS 2020, fit accuracies on the logit scale, where models of all accuracies
    lie closer to a line than on the linear one.

    Args:
        validation: Accuracies on the validation set, between 0 and 1, of at least two models.
        shifted: Accuracies of the same models on the new set.
        source: Which models these are.

    Raises:
        EvaluationError: The two differ in length, an accuracy is not strictly between 0 and 1, or
            fewer than two accuracies on validation are different.
    """
    x = np.asarray(validation, dtype=np.float64)
    y = np.asarray(shifted, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise EvaluationError(
            f"A line is fitted to one pair of accuracies a model: found shapes {x.shape} and "
            f"{y.shape}."
        )
    if not (((x > 0) & (x < 1)).all() and ((y > 0) & (y < 1)).all()):
        raise EvaluationError(
            "A line is fitted to accuracies between 0 and 1, without 0 and 1: found values from "
            f"{min(x.min(initial=1), y.min(initial=1))} to "
            f"{max(x.max(initial=0), y.max(initial=0))}. Percentages have to be divided by 100."
        )
    if len(np.unique(x)) < 2:
        raise EvaluationError("A line needs models of at least two accuracies on validation.")
    x, y = np.log(x / (1 - x)), np.log(y / (1 - y))
    centred = x - x.mean()
    slope = float(centred @ (y - y.mean()) / (centred @ centred))
    return Line(slope, float(y.mean() - slope * x.mean()), "logit", source)


def effective_robustness(
    validation: Accuracy, shifted: Accuracy, line: Line
) -> EffectiveRobustness:
    """Returns the accuracy beyond what a line leads to expect.

    Taori et al., "Measuring Robustness to Natural Distribution Shifts in Image Classification",
    NeurIPS 2020.

    Args:
        validation: The accuracy on validation.
        shifted: The same metric on the new images.
        line: The line.
    """
    expected = line.expected(validation.value)
    limits = sorted(line.expected(x) for x in (validation.interval.low, validation.interval.high))
    around = dataclasses.replace(validation.interval, low=limits[0], high=limits[1])
    interval = intervals.difference(shifted.value, shifted.interval, expected, around)
    return EffectiveRobustness(shifted.value - expected, interval, shifted.n, expected, line)


def _logit(share: float) -> float:
    if share in (0, 1):
        return math.inf if share else -math.inf
    return math.log(share / (1 - share))


def _share(logit: float) -> float:
    # Two forms, so that neither exponential can overflow.
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))

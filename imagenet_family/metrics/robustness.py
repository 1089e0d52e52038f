"""How much of its accuracy a model keeps on ImageNetV2, and how much is to be expected."""

import dataclasses
import math
from collections.abc import Sequence

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


# acc_new = 1.11 acc_orig - 20.2 % for top-1 accuracy on the matched-frequency images, with a 95 %
# bootstrap interval of the slope from 1.07 to 1.19, is what summaries of the paper (arXiv
# 1902.10811) quote; the paper's own text was not compared. The most accurate of its models, with
# 82.9 % on validation and 72.2 % on the new images, is 0.4 points above this line. For the other
# two configs no such coefficients are known here.
RECHT_2019 = Line(
    slope=1.11,
    intercept=-0.202,
    scale="linear",
    source='Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019: '
    "top-1, matched frequency",
)


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


@dataclasses.dataclass(frozen=True)
class V2Gap(Result):
    """Accuracy lost from the validation set to ImageNetV2.

    Attributes:
        metric: `v2_gap`.
        value: Accuracy on validation minus accuracy on V2; positive if the model is worse on V2.
        interval: Its interval.
        n: Number of V2 images.
        validation: The accuracy on validation.
        v2: The accuracy on V2.
        effective_robustness: None if no line was given.
    """

    metric: str
    value: float
    interval: Interval
    n: int
    validation: Accuracy
    v2: Accuracy
    effective_robustness: EffectiveRobustness | None


def v2_gap(validation: Accuracy, v2: Accuracy, line: Line | None = None) -> V2Gap:
    """Returns how much accuracy a model loses from the validation set to ImageNetV2.

    Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019. Effective
    robustness is the accuracy beyond the line of standard models: Taori et al., "Measuring
    Robustness to Natural Distribution Shifts in Image Classification", NeurIPS 2020.

    Args:
        validation: `top1` or `top5` on the validation images.
        v2: The same metric on a config of ImageNetV2.
        line: What to expect on V2. `RECHT_2019` is published for top-1 on the config
            `matched-frequency` only; for anything else, `fit_line` makes one of models that are
            known on both sets.

    Raises:
        EvaluationError: The two are of different metrics or interval levels, or the published
            line is given for another metric than top-1.
    """
    if validation.metric != v2.metric:
        raise EvaluationError(
            f"A gap is between two values of one metric: found {validation.metric} on validation "
            f"and {v2.metric} on V2."
        )
    if line is RECHT_2019 and v2.metric != "top1":
        raise EvaluationError(
            f"The line of Recht et al. is for top-1 accuracy, not for {v2.metric}: pass the line "
            "of fit_line, or none."
        )
    interval = intervals.difference(validation.value, validation.interval, v2.value, v2.interval)
    return V2Gap(
        "v2_gap",
        validation.value - v2.value,
        interval,
        v2.n,
        validation,
        v2,
        None if line is None else _effective_robustness(validation, v2, line),
    )


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


def _effective_robustness(validation: Accuracy, v2: Accuracy, line: Line) -> EffectiveRobustness:
    expected = line.expected(validation.value)
    limits = sorted(line.expected(x) for x in (validation.interval.low, validation.interval.high))
    around = dataclasses.replace(validation.interval, low=limits[0], high=limits[1])
    interval = intervals.difference(v2.value, v2.interval, expected, around)
    return EffectiveRobustness(v2.value - expected, interval, v2.n, expected, line)


def _logit(share: float) -> float:
    if share in (0, 1):
        return math.inf if share else -math.inf
    return math.log(share / (1 - share))


def _share(logit: float) -> float:
    # Two forms, so that neither exponential can overflow.
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))

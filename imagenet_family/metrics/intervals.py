"""Confidence intervals, each with the name of its method.

NumPy and the standard library only. Random numbers come from a fixed seed, so that the same
counts give the same interval every time.
"""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from imagenet_family.errors import EvaluationError

LEVEL = 0.95
BOOTSTRAP_SAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval.

    Attributes:
        low: Lower limit, in the unit of the estimate.
        high: Upper limit.
        method: How the limits were computed, in words.
        level: Nominal coverage, between 0 and 1.
    """

    low: float
    high: float
    method: str
    level: float


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Returns the score interval of a proportion.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
    American Statistical Association 22, 1927. It stays inside [0, 1] and does not shrink to a
    point when all or none of the trials succeed.

    Args:
        successes: Number of successes, 0 to `n`.
        n: Number of trials, at least 1.
        level: Nominal coverage, between 0 and 1.

    Raises:
        EvaluationError: There are no trials, or the level is not between 0 and 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise EvaluationError(
            f"A proportion needs at least one image and at most as many hits as images: found "
            f"{successes} of {n}."
        )
    z = _normal_quantile(level)
    share = successes / n
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the two ends the limit is exactly 0 or 1; rounding must not take it past that.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high, "Wilson score", level)


def class_bootstrap(per_class: np.ndarray, level: float = LEVEL) -> Interval:
    """Returns the percentile bootstrap interval of a mean over classes.

    Classes are drawn with replacement: the interval says how far the mean depends on which
    classes there are. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        per_class: One number a class, float64 of shape (classes,), without NaN.
        level: Nominal coverage, between 0 and 1.
    """
    if not per_class.size:
        raise EvaluationError("A mean over classes needs at least one class that has images.")
    tail = (1 - checked_level(level)) / 2
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(per_class.size, size=(BOOTSTRAP_SAMPLES, per_class.size), dtype=np.int32)
    low, high = np.quantile(per_class[drawn].mean(axis=1), [tail, 1 - tail])
    method = f"percentile bootstrap over {per_class.size} classes ({BOOTSTRAP_SAMPLES} samples)"
    return Interval(float(low), float(high), method, level)


def difference(
    first: float, first_interval: Interval, second: float, second_interval: Interval
) -> Interval:
    """Returns the interval of `first - second`, two estimates from different images.

    Newcombe, "Interval Estimation for the Difference Between Independent Proportions", Statistics
    in Medicine 17, 1998, method 10: the limits of the two estimates, here Wilson's, are combined.
    Zou and Donner, Statistics in Medicine 27, 2008, show that the same holds for other estimates
    than proportions.

    Raises:
        EvaluationError: The two intervals have different levels.
    """
    if first_interval.level != second_interval.level:
        raise EvaluationError(
            f"Two estimates with intervals of level {first_interval.level} and "
            f"{second_interval.level} cannot be subtracted: compute both at the same level."
        )
    estimate = first - second
    down = math.hypot(first - first_interval.low, second_interval.high - second)
    up = math.hypot(first_interval.high - first, second - second_interval.low)
    return Interval(estimate - down, estimate + up, "Newcombe hybrid score", first_interval.level)


def paired_difference(only_first: int, only_second: int, n: int, level: float = LEVEL) -> Interval:
    """Returns the interval of the difference of two proportions over the same images.

    Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data", Journal of Educational and Behavioral Statistics 37, 2012.

    Args:
        only_first: Number of images on which only the first succeeds.
        only_second: Number of images on which only the second succeeds.
        n: Number of images, at least 1.
        level: Nominal coverage, between 0 and 1.
    """
    if n < 1:
        raise EvaluationError("A paired difference needs at least one image.")
    z = _normal_quantile(level)
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = z * math.sqrt((first + second - (first - second) ** 2) / (n + 2))
    return Interval(
        max(-1.0, first - second - half),
        min(1.0, first - second + half),
        "Bonett-Price adjusted Wald, paired over images",
        level,
    )


def _normal_quantile(level: float) -> float:
    return statistics.NormalDist().inv_cdf((1 + checked_level(level)) / 2)


def checked_level(level: float) -> float:
    """Gives a nominal coverage back.

    Raises:
        EvaluationError: It is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise EvaluationError(
            f"A confidence level is between 0 and 1, such as 0.95: found {level}."
        )
    return level

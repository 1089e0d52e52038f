"""The intervals against SciPy, published examples and their own coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation import RECHT_2019, Interval, Labels, Line
from imagenet_family.metrics import intervals, robustness


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("k", "n"), [(0, 1), (1, 1), (0, 68), (68, 68), (12, 68), (37_123, 50_000)]
)
def test_wilson_equals_scipy(k, n, level):
    found = intervals.wilson(k, n, level)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert found.low == pytest.approx(expected.low, rel=1e-12, abs=1e-15)
    assert found.high == pytest.approx(expected.high, rel=1e-12)
    assert (found.method, found.level) == ("Wilson score", level)
    assert 0 <= found.low <= k / n <= found.high <= 1


# Newcombe 1998, table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_difference_equals_newcombes_published_examples(first, second, low, high):
    found = intervals.difference(
        first[0] / first[1],
        intervals.wilson(*first),
        second[0] / second[1],
        intervals.wilson(*second),
    )
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_difference_of_two_levels():
    with pytest.raises(EvaluationError, match="same level"):
        intervals.difference(0.5, intervals.wilson(5, 10, 0.9), 0.5, intervals.wilson(5, 10))


@pytest.mark.parametrize(("p10", "p01"), [(0.1, 0.1), (0.3, 0.05), (0.02, 0.0), (0.5, 0.4)])
def test_paired_difference_covers_the_truth_as_often_as_it_says(p10, p01):
    n = 40
    coverage = 0.0
    for n10 in range(n + 1):
        for n01 in range(n + 1 - n10):
            probability = stats.multinomial.pmf(
                [n10, n01, n - n10 - n01], n, [p10, p01, 1 - p10 - p01]
            )
            found = intervals.paired_difference(n10, n01, n)
            if found.low <= p10 - p01 <= found.high:
                coverage += probability
    assert 0.94 < coverage <= 1 + 1e-9


def test_paired_difference_mirrors():
    there, back = intervals.paired_difference(7, 2, 30), intervals.paired_difference(2, 7, 30)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_class_bootstrap_agrees_with_scipy():
    accuracy = np.random.default_rng(1).beta(6, 2, size=1000)
    found = intervals.class_bootstrap(accuracy)
    expected = stats.bootstrap(
        (accuracy,), np.mean, n_resamples=9999, method="percentile", rng=5, batch=500
    ).confidence_interval
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=width / 20)
    assert found.high == pytest.approx(expected.high, abs=width / 20)
    assert "bootstrap over 1000 classes" in found.method
    assert intervals.class_bootstrap(accuracy) == found


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan])
def test_levels_that_are_none(level):
    for compute in (
        lambda: intervals.wilson(1, 2, level),
        lambda: intervals.class_bootstrap(np.ones(3), level),
        lambda: intervals.paired_difference(1, 1, 5, level),
    ):
        with pytest.raises(EvaluationError, match="confidence level"):
            compute()


def test_intervals_of_nothing():
    for compute in (
        lambda: intervals.wilson(0, 0),
        lambda: intervals.wilson(3, 2),
        lambda: intervals.class_bootstrap(np.zeros(0)),
        lambda: intervals.paired_difference(0, 0, 0),
    ):
        with pytest.raises(EvaluationError):
            compute()


def _accuracy(correct, n, metric=evaluation.top1):
    labels = Labels([str(i) for i in range(n)], np.zeros(n, dtype=np.int64))
    ranked = np.tile([0, 2, 3, 4, 5], (n, 1))
    ranked[correct:, 0] = 1
    return metric(labels, ranked)


def test_v2_gap_and_the_published_line():
    found = evaluation.v2_gap(_accuracy(761, 1000), _accuracy(633, 1000), RECHT_2019)
    assert found.value == pytest.approx(0.128)
    assert found.interval.low < 0.128 < found.interval.high
    robust = found.effective_robustness
    assert robust.expected == pytest.approx(1.11 * 0.761 - 0.202)
    assert robust.value == pytest.approx(0.633 - (1.11 * 0.761 - 0.202))
    assert robust.interval.low < robust.value < robust.interval.high
    assert robust.line is RECHT_2019
    assert found.n == robust.n == 1000


def test_v2_gap_without_a_line_says_nothing_of_robustness():
    assert evaluation.v2_gap(_accuracy(5, 10), _accuracy(4, 10)).effective_robustness is None


def test_v2_gap_of_two_metrics():
    with pytest.raises(EvaluationError, match="top1 on validation and top5 on V2"):
        evaluation.v2_gap(_accuracy(5, 10), _accuracy(5, 10, evaluation.top5))
    top5 = _accuracy(5, 10, evaluation.top5)
    with pytest.raises(EvaluationError, match="for top-1 accuracy"):
        evaluation.v2_gap(top5, top5, RECHT_2019)


def test_fit_line_equals_scipy_on_the_logits():
    rng = np.random.default_rng(0)
    validation = rng.uniform(0.5, 0.9, 30)
    shifted = validation - rng.uniform(0.08, 0.14, 30)
    line = evaluation.fit_line(validation, shifted, "thirty models")
    expected = stats.linregress(
        np.log(validation / (1 - validation)), np.log(shifted / (1 - shifted))
    )
    assert line.slope == pytest.approx(expected.slope, rel=1e-12)
    assert line.intercept == pytest.approx(expected.intercept, rel=1e-12)
    assert (line.scale, line.source) == ("logit", "thirty models")


def test_a_fitted_line_goes_through_its_points_and_from_0_to_1():
    line = evaluation.fit_line([0.6, 0.8], [0.5, 0.7], "two models")
    assert line.expected(0.6) == pytest.approx(0.5)
    assert line.expected(0.8) == pytest.approx(0.7)
    assert (line.expected(0), line.expected(1)) == (0, 1)
    gap_ = evaluation.v2_gap(_accuracy(10, 10), _accuracy(9, 10), line)
    assert gap_.effective_robustness.expected == 1
    assert gap_.effective_robustness.value == pytest.approx(-0.1)
    assert isinstance(gap_.effective_robustness.interval, Interval)


def test_a_falling_line_has_its_limits_in_order():
    falling = Line(-1.0, 1.0, "linear", "made up")
    found = evaluation.v2_gap(_accuracy(5, 10), _accuracy(5, 10), falling).effective_robustness
    assert found.interval.low < found.value < found.interval.high


@pytest.mark.parametrize(
    ("validation", "shifted", "message"),
    [
        ([0.5, 0.6], [0.5], "one pair of accuracies a model"),
        ([76.1, 80.2], [63.3, 68.1], "divided by 100"),
        ([0.5, 1.0], [0.4, 0.5], "between 0 and 1"),
        ([0.5, math.nan], [0.4, 0.5], "between 0 and 1"),
        ([0.5, 0.5], [0.4, 0.5], "at least two"),
        ([], [], "at least two"),
    ],
)
def test_lines_that_cannot_be_fitted(validation, shifted, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.fit_line(validation, shifted, "bad")


def test_extreme_logits_do_not_overflow():
    assert robustness.Line(1e3, 0, "logit", "steep").expected(0.999) == 1
    assert robustness.Line(1e3, 0, "logit", "steep").expected(0.001) == 0

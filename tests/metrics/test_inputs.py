"""Labels and predictions that do not fit give an error, never a number."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError, ImagenetFamilyError
from imagenet_family.evaluation import Labels, LabelSets, Predictions, as_predictions
from imagenet_family.labels.classes import NUM_CLASSES, wnids


def _labels():
    return Labels(["a", "b", "c"], [10, 20, 30])


def _scores(n=3):
    return np.random.default_rng(0).standard_normal((n, NUM_CLASSES), dtype=np.float32)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"a": 1, "b": 2}, "1 of 3 images have no prediction: 'c'"),
        ({}, "3 of 3 images have no prediction: 'a', 'b', 'c'|0 predictions for 3 images"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "1 of 4 predictions are for images.*'d'.*select"),
        ({"val/a": 1, "val/b": 2, "val/c": 3}, "3 of 3 predictions.*'val/a'.*such as 'a'"),
        ([1, 2], "2 predictions for 3 images, and no file names"),
        ([1, 2, 3, 4], "4 predictions for 3 images, and no file names"),
        ([1, 2, 1000], r"1 are outside, such as 1000 \(rows 2\)"),
        ([1, -1, 3], r"outside, such as -1 \(rows 1\).*logits, pass floats"),
        ({"a": 1, "b": 1000, "c": 3}, r"outside, such as 1000 \('b'\)"),
        ([1.0, 2.0, 3.0], r"found float64 of shape \(3,\)"),
        ([True, False, True], "found bool"),
        ([None, 1, 2], "found object"),
        ([1j, 2, 3], "found complex"),
        (5, r"shape \(n,\) or \(n, k\): found \(\)"),
        (np.zeros((3, 5, 2), int), r"found \(3, 5, 2\)"),
        ([[1, 2], [3, 4], [5]], "do not make an array"),
        ([[1, 2], [3, 3], [5, 6]], "1 of 3 predictions name a class more than once: rows 1"),
        (["n01440764", "n01443537", "tench"], "1 predicted labels are not among.*'tench'"),
        (["1", "2", "3"], "not among the 1,000 wnids"),
        (["65", "dog", "66"], "ILSVRC-2012: 'dog'\\."),
        ([b"n01440764", b"\xff", b"n01443537"], "not among the 1,000 wnids"),
        (_scores()[:, :999], r"shape \(n, 1000\).*found \(3, 999\)"),
        (np.zeros((3, 1001)), r"found \(3, 1001\).*scores\[:, 1:\]"),
        (abs(_scores()).astype(np.int64), "more than once.*if these are logits, pass floats"),
        (np.full((3, NUM_CLASSES), np.nan), "3 of 3 images have logits that are NaN"),
        (np.full((3, NUM_CLASSES), -np.inf), "3 of 3 images have fewer than 5 finite"),
    ],
)
def test_predictions_that_do_not_fit(predictions, message):
    for metric in (evaluation.top1, evaluation.per_class_accuracy, evaluation.confusion_pairs):
        with pytest.raises(EvaluationError, match=message):
            metric(_labels(), predictions)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 500, 999])
def test_a_single_bad_logit_is_found(dtype, bad, column):
    scores = _scores(1200).astype(dtype)
    scores[1100, column] = bad
    with pytest.raises(EvaluationError, match=r"1 of 1,200 images have logits.*rows 1100"):
        as_predictions(scores)
    names = [f"image {i}" for i in range(1200)]
    with pytest.raises(EvaluationError, match="'image 1100'"):
        as_predictions(scores, names)


def test_minus_infinity_leaves_a_class_out():
    scores = _scores()
    scores[:, 5:] = -np.inf
    assert (np.sort(as_predictions(scores).top_k, axis=1) == np.arange(5)).all()
    scores[1, 4] = -np.inf
    with pytest.raises(EvaluationError, match="1 of 3 images have fewer than 5 finite"):
        as_predictions(scores)
    assert Predictions.from_scores(scores, k=4).top_k.shape == (3, 4)


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        st.integers(1, 3).map(lambda n: (n, NUM_CLASSES)),
        elements=st.sampled_from([-2.0, 0.0, -0.0, 0.5, 1.0, 60000.0]),
    )
)
def test_the_best_classes_are_those_of_a_stable_sort(scores):
    expected = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :5]
    given_scores = scores.copy()
    np.testing.assert_array_equal(Predictions.from_scores(scores).top_k, expected)
    np.testing.assert_array_equal(scores, given_scores)


@pytest.mark.parametrize("k", [0, 1001])
def test_a_k_that_cannot_be(k):
    with pytest.raises(EvaluationError, match="k goes from 1 to 1000"):
        Predictions.from_scores(_scores(), k=k)


def test_logits_that_are_not_floats():
    with pytest.raises(EvaluationError, match="Logits are floats: found int64"):
        Predictions.from_scores(np.zeros((3, NUM_CLASSES), dtype=np.int64))


def test_repeated_file_names():
    with pytest.raises(EvaluationError, match=r"1 file names occur more than once.*'a'"):
        Predictions([1, 2, 3], ["a", "b", "a"])
    with pytest.raises(EvaluationError, match=r"more than once in the labels: 'x'"):
        Labels(["x", "x"], [1, 2])


def test_another_number_of_names_than_predictions():
    with pytest.raises(EvaluationError, match="2 file names for 3 predictions"):
        Predictions([1, 2, 3], ["a", "b"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abc", "found the single name 'abc'"),
        ([1, 2, 3], "File name 0 is not text"),
        ([b"a", b"\xff", b"c"], "File name 1 is not UTF-8"),
        (["a", None, "c"], "File name 1 is not text"),
    ],
)
def test_file_names_that_are_none(names, message):
    with pytest.raises(EvaluationError, match=message):
        Predictions([1, 2, 3], names)


def test_long_names_are_shortened():
    with pytest.raises(EvaluationError) as error:
        evaluation.top1(_labels(), {"x" * 10_000: 1, "b": 2, "c": 3})
    assert len(str(error.value)) < 500


def test_a_few_of_many_are_named():
    labels = Labels([f"i{n}" for n in range(1000)], [0] * 1000)
    with pytest.raises(EvaluationError, match=r"999 of 1,000 images") as error:
        evaluation.top1(labels, {"i0": 0})
    assert re.search("'i1', 'i2', 'i3', 'i4', 'i5', …", str(error.value))


def test_top5_needs_five():
    with pytest.raises(EvaluationError, match="the predictions have 1"):
        evaluation.top5(_labels(), [1, 2, 3])


def test_every_form_gives_the_same():
    scores = _scores()
    ids = as_predictions(scores).top_k
    names = np.array(wnids())[ids]
    for form in (ids, ids.tolist(), ids.astype(np.uint16), names, names.astype("S")):
        np.testing.assert_array_equal(as_predictions(form).top_k, ids)
    by_name = as_predictions({"c": scores[2], "a": scores[0], "b": scores[1]})
    np.testing.assert_array_equal(by_name.select(["a", "b", "c"]).top_k, ids)
    assert as_predictions(by_name) is by_name


def test_names_beside_predictions_that_have_them():
    for predictions in (Predictions([1], ["a"]), {"a": 1}):
        with pytest.raises(EvaluationError, match="have their own"):
            as_predictions(predictions, ["b"])


def test_select_takes_a_part_by_name():
    predictions = as_predictions({"a": 10, "b": 20, "c": 31, "d": 5})
    part = predictions.select(_labels().file_name)
    assert evaluation.top1(_labels(), part).value == pytest.approx(2 / 3)
    with pytest.raises(EvaluationError, match="1 of 2 images have no prediction: 'e'"):
        predictions.select(["a", "e"])
    with pytest.raises(EvaluationError, match="without file names"):
        as_predictions([1, 2]).select(["a"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file_name": ["a"]}, "without label"),
        ({"label": [1], "real_label": [[1]]}, "without file_name"),
        ({"file_name": [], "label": []}, "no images"),
        ({"file_name": ["a", "b"], "label": [1]}, "Column label.*2 images, found 1"),
        ({"file_name": ["a"], "label": [-1]}, "test split have the label -1"),
        ({"file_name": ["a"], "label": [1000]}, r"such as 1000 \('a'\)"),
        ({"file_name": ["a"], "label": [1.0]}, "found float64"),
        ({"file_name": ["a"], "label": [[1]]}, r"of shape \(1, 1\)"),
        ({"file_name": ["a"], "label": 1}, r"of shape \(\)"),
        ({"file_name": ["a", "b"], "label": [[1], 2]}, "found lists"),
        ({"file_name": ["a"], "label": [1], "real_label": [[1], []]}, "real_label.*found 2"),
        ({"file_name": ["a"], "label": [1], "real_label": [3]}, "a sequence of class ids"),
        ({"file_name": ["a"], "label": [1], "real_label": [[1000]]}, "real_label: class ids go"),
        ({"file_name": ["a"], "label": [1], "real_label": [["n01440764"]]}, "real_label.*integer"),
        ({"file_name": ["a"], "label": [1], "is_problematic": [0]}, "expected booleans"),
        ({"file_name": ["a"], "label": [1], "is_problematic": [True, True]}, "found 2"),
    ],
)
def test_labels_that_do_not_fit(columns, message):
    with pytest.raises(EvaluationError, match=message):
        Labels.from_columns(columns)


@pytest.mark.parametrize(
    ("metric", "column"),
    [
        (evaluation.multilabel_accuracy, "correct_multi_labels"),
        (evaluation.imagenet_m, "correct_multi_labels"),
        (evaluation.real_accuracy, "real_label"),
    ],
)
def test_a_metric_without_its_labels(metric, column):
    with pytest.raises(EvaluationError, match=f"the column {column}, and these labels have none"):
        metric(_labels(), [1, 2, 3])


def test_no_image_left():
    labels = Labels(
        ["a", "b"],
        [1, 2],
        correct_multi_labels=[[1], [2]],
        unclear_multi_labels=[[], []],
        is_problematic=[True, True],
        real_label=[[], []],
    )
    for metric in (evaluation.multilabel_accuracy, evaluation.real_accuracy):
        with pytest.raises(EvaluationError, match=r"No image is left.*all 2 are excluded"):
            metric(labels, [1, 2])


def test_an_unknown_metric():
    with pytest.raises(EvaluationError, match="Unknown metric 'top3': expected one of top1, top5"):
        evaluation.compare(_labels(), [1, 2, 3], [1, 2, 3], "top3")


def test_label_sets_of_nothing():
    sets = LabelSets.from_lists([[], [], []])
    assert sets.sizes().tolist() == [0, 0, 0]
    assert not sets.contain(np.array([0, 1, 2])).any()
    assert sets.of(1) == ()


_odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.sampled_from(wnids()[:3]),
)


@given(
    st.one_of(
        _odd_values,
        st.lists(_odd_values, max_size=4),
        st.lists(st.lists(_odd_values, max_size=3), max_size=4),
        st.dictionaries(st.text(max_size=2), _odd_values, max_size=4),
    )
)
def test_odd_predictions_give_this_error_or_a_number(predictions):
    try:
        found = evaluation.top1(_labels(), predictions)
    except ImagenetFamilyError:
        return
    assert 0 <= found.value <= 1

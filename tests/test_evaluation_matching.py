"""Which predictions are for which split."""

import evaluation_lib
import numpy as np
import pytest

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation.matching import PredictionFile, match


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return evaluation_lib.Models(tmp_path_factory.mktemp("models"))


def named(path, names, values=1):
    top_k = np.full(len(names), values)
    return PredictionFile(path, evaluation.Predictions(top_k, names))


def test_a_split_takes_the_file_that_has_all_of_it(models):
    first, second = models.splits[:2]
    shared = first.labels.file_name[:1]
    files = [
        named("a.csv", first.labels.file_name, 1),
        named("b.csv", (*shared, *second.labels.file_name[1:]), 2),
    ]
    other = evaluation.LabelledSplit(
        second.dataset,
        second.split,
        evaluation.Labels(files[1].predictions.file_names, second.labels.label),
        "",
    )
    found = match("m", files, [first, other])
    assert [set(each.top_k[:, 0]) for each in found] == [{1}, {2}]


def test_files_of_parts_are_put_together(models):
    split = models.splits[0]
    names = split.labels.file_name
    files = [named("a.csv", names[:20], 1), named("b.csv", names[20:], 2)]
    (found,) = match("m", files, [split])
    assert found.file_names == names
    assert found.top_k[:, 0].tolist() == [1] * 20 + [2] * (len(names) - 20)
    same_twice = [named("a.csv", names, 1), named("b.csv", names, 1)]
    assert (match("m", same_twice, [split])[0].top_k == 1).all()


def test_predictions_that_do_not_fit(models):
    split = models.splits[0]
    names = split.labels.file_name
    with pytest.raises(EvaluationError, match=r"'m' has no prediction for 1 of the 60 .*MODEL="):
        match("m", [named("a.csv", names[1:])], [split])
    with pytest.raises(EvaluationError, match=r"different predictions for 60 .* a.csv, b.csv"):
        match("m", [named("a.csv", names, 1), named("b.csv", names, 2)], [split])
    with pytest.raises(EvaluationError, match=r"a.csv: 1 of the 61 .*'stranger'"):
        match("m", [named("a.csv", (*names, "stranger"))], [split])
    unused = named("b.csv", ["ILSVRC2012_val_00000001.JPEG"])
    with pytest.raises(EvaluationError, match=r"b.csv: none of its 1 images"):
        match("m", [named("a.csv", names), unused], [split])

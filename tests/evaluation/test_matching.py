"""Which predictions are for which split."""

import numpy as np
import pytest

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation.matching import PredictionFile, match


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


def test_two_files_that_contradict_each_other_are_refused_even_if_one_has_all_images(models):
    v2 = models.splits[0]
    (validation,) = [split for split in models.splits if split.dataset == "imagenet2012"]
    names = validation.labels.file_name
    files = [
        named("val.csv", names, 1),
        named("both.csv", (*names[:2], *v2.labels.file_name), 2),
    ]
    with pytest.raises(EvaluationError, match=r"different predictions for 2 .* val.csv, both.csv"):
        match("m", files, [validation, v2])
    part = [named("val.csv", names, 1), named("part.csv", names[:2], 1)]
    assert (match("m", part, [validation])[0].top_k == 1).all()


def test_a_file_of_fewer_classes_does_not_take_top5_from_another(models):
    (validation,) = [split for split in models.splits if split.dataset == "imagenet2012"]
    names = validation.labels.file_name
    five = PredictionFile("five.csv", evaluation.Predictions([[1, 2, 3, 4, 5]] * len(names), names))
    for one in (named("one.csv", names, 1), named("one.csv", names[:9], 1)):
        for files in ([five, one], [one, five]):
            (found,) = match("m", files, [validation])
            assert found.top_k.tolist() == [[1, 2, 3, 4, 5]] * len(names)


def test_a_file_that_others_make_superfluous_is_told(models):
    split = models.splits[0]
    names = split.labels.file_name
    with pytest.raises(EvaluationError, match=r"b.csv: .* other files have all .* or remove it"):
        match("m", [named("a.csv", names), named("b.csv", names[:2])], [split])


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


def test_predictions_without_names_are_in_the_order_of_the_sorted_names(models):
    v2 = models.splits[0]
    validation = [s for s in models.splits if s.dataset in ("imagenet2012", "imagenet2012_real")]
    order = np.argsort(v2.labels.file_name)
    file = PredictionFile("p.npy", evaluation.Predictions(v2.labels.label[order]))
    (found,) = match("m", [file], [v2])
    assert (found.top_k[:, 0] == v2.labels.label).all()
    # Two datasets with the same images are no question, other sizes and several sets are one.
    same = PredictionFile("p.npy", evaluation.Predictions(np.zeros(len(validation[0].labels), int)))
    assert len(match("m", [same], validation)) == 2
    with pytest.raises(EvaluationError, match=r"p.npy: 60 .* without file names, and no split"):
        match("m", [file], validation)
    configs = [s for s in models.splits if s.dataset.startswith("imagenet_v2")]
    assert len({s.labels.file_name for s in configs}) > 1
    with pytest.raises(EvaluationError, match="several splits have so many images"):
        match("m", [file], configs)

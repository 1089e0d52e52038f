"""The metrics against a second implementation that shares nothing with them."""

import collections
import importlib.util
import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from published_files import published_file

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation import Labels, Predictions
from imagenet_family.labels.classes import (
    NUM_CLASSES,
    validation_image_names,
    validation_labels,
    wnids,
)

NUM_RANDOM_SETS = 1000


class Reference:
    """The metrics written down a second time, image by image, with exact fractions."""

    def __init__(self, rows):
        self.rows = rows

    def share(self, rows, is_right):
        if not rows:
            return None
        return float(Fraction(sum(1 for row in rows if is_right(row)), len(rows)))

    def class_mean(self, rows, is_right):
        by_class = collections.defaultdict(list)
        for row in rows:
            by_class[row["label"]].append(1 if is_right(row) else 0)
        if not by_class:
            return None
        shares = [Fraction(sum(hits), len(hits)) for hits in by_class.values()]
        return float(sum(shares, Fraction(0)) / len(shares))

    def clean(self):
        return [row for row in self.rows if not row["is_problematic"]]

    def labelled(self):
        return [row for row in self.rows if row["real_label"]]

    def confusions(self, n):
        counts = collections.Counter(
            (row["label"], row["top"][0]) for row in self.rows if row["label"] != row["top"][0]
        )
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]
        totals = collections.Counter(row["label"] for row in self.rows)
        return [(label, guess, count, totals[label]) for (label, guess), count in ordered]


def is_top1(row):
    return row["top"][0] == row["label"]


def is_top5(row):
    return row["label"] in row["top"][:5]


def is_strict(row):
    return row["top"][0] in row["correct_multi_labels"]


def is_lenient(row):
    return row["top"][0] in row["correct_multi_labels"] + row["unclear_multi_labels"]


def is_real(row):
    return row["top"][0] in row["real_label"]


def _random_rows(rng):
    """Returns labels and predictions that often agree, with every kind of odd case."""
    classes = rng.sample(range(NUM_CLASSES), rng.choice([1, 2, 5, 12]))
    if rng.random() < 0.2:
        classes += [0, 999]
    num_rows = rng.choice([1, 2, 3, 10, 40])
    problematic = rng.choice([0.0, 0.2, 1.0 if rng.random() < 0.1 else 0.5])
    rows = []
    for i in range(num_rows):
        label = rng.choice(classes)
        guess = [rng.choice(classes), *rng.sample(range(NUM_CLASSES), 20)]
        rows.append(
            {
                "file_name": f"image {i}, “{rng.randrange(10)}”.JPEG",
                "label": label,
                "correct_multi_labels": rng.choices(classes, k=rng.choice([0, 1, 1, 3])),
                "unclear_multi_labels": rng.choices(classes, k=rng.choice([0, 0, 1, 2])),
                "wrong_multi_labels": rng.choices(classes, k=rng.choice([0, 1])),
                "is_problematic": rng.random() < problematic,
                "real_label": rng.choices(classes, k=rng.choice([0, 1, 2])),
                "top": list(dict.fromkeys(guess))[:5],
            }
        )
    return rows


def _labels(rows, rng):
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "top"}
    columns["image"] = [None] * len(rows)
    if rng.random() < 0.5:
        columns["original_label"] = columns.pop("label")
    if rng.random() < 0.5:
        columns["file_name"] = np.array([name.encode() for name in columns["file_name"]])
    return Labels.from_columns(columns)


def _predictions(rows, rng):
    """Returns the predictions in one of the accepted forms; logits change the rows' `top`."""
    form = rng.choice(["ids", "top5", "wnids", "top5 wnids", "mapping", "named", "logits"])
    if form == "logits" and len(rows) > 10:
        form = "ids"
    top = [row["top"] for row in rows]
    names = [row["file_name"] for row in rows]
    if form == "logits":
        scores = np.zeros((len(rows), NUM_CLASSES), dtype=rng.choice(["f2", "f4", "f8"]))
        for i, row in enumerate(rows):
            for label in row["top"]:
                scores[i, label] = rng.choice([-1, 0.5, 0.5, 1, 2])
            ranked = sorted(range(NUM_CLASSES), key=lambda c, i=i: (-scores[i, c], c))
            row["top"] = ranked[:5]
        return scores, 5
    if form == "ids":
        return np.array([best[0] for best in top], dtype=np.int16), 1
    if form == "wnids":
        return [wnids()[best[0]] for best in top], 1
    if form == "top5 wnids":
        return [[wnids()[label] for label in best] for best in top], 5
    shuffled = rng.sample(range(len(rows)), len(rows))
    if form == "mapping":
        return {names[i]: top[i] for i in shuffled}, 5
    if form == "named":
        return Predictions([top[i] for i in shuffled], [names[i] for i in shuffled]), 5
    return top, 5


def _value(metric, *args, **options):
    """Returns the metric's value, or None where it says that no image is left."""
    try:
        return metric(*args, **options)
    except EvaluationError as error:
        assert "No image is left" in str(error)
        return None


@pytest.mark.parametrize("block", range(10))
def test_every_metric_equals_the_second_implementation(block):
    for seed in range(block * NUM_RANDOM_SETS // 10, (block + 1) * NUM_RANDOM_SETS // 10):
        rng = random.Random(seed)
        rows = _random_rows(rng)
        labels = _labels(rows, rng)
        predictions, k = _predictions(rows, rng)
        reference = Reference(rows)

        assert evaluation.top1(labels, predictions).value == reference.share(rows, is_top1)
        if k == 5:
            assert evaluation.top5(labels, predictions).value == reference.share(rows, is_top5)
        per_class = evaluation.per_class_accuracy(labels, predictions)
        assert per_class.value == reference.class_mean(rows, is_top1)
        by_class = collections.defaultdict(list)
        for row in rows:
            by_class[row["label"]].append(row)
        expected = [None] * NUM_CLASSES
        for class_id, of_class in by_class.items():
            expected[class_id] = reference.share(of_class, is_top1)
        accuracies = [None if x != x else x for x in per_class.per_class.accuracy.tolist()]
        assert accuracies == expected
        empty = [class_id for class_id in range(NUM_CLASSES) if class_id not in by_class]
        assert list(per_class.per_class.without_images) == empty

        for strict, is_right in ((False, is_lenient), (True, is_strict)):
            found = _value(evaluation.multilabel_accuracy, labels, predictions, strict=strict)
            clean = reference.clean()
            assert (found is None) == (not clean)
            if found is not None:
                assert found.value == reference.class_mean(clean, is_right)
                assert found.over_images.value == reference.share(clean, is_right)
                assert found.n == len(clean)
                assert sum(e.n for e in found.excluded) == len(rows) - len(clean)
                assert found.num_classes == len({row["label"] for row in clean})

        found = _value(evaluation.real_accuracy, labels, predictions)
        assert (found and found.value) == reference.share(reference.labelled(), is_real)

        mistakes = [row["file_name"] for row in rows if not is_lenient(row)]
        found = evaluation.imagenet_m(labels, predictions)
        assert found.value == len(mistakes)
        assert [mistake.file_name for mistake in found.mistakes] == mistakes
        by_name = {row["file_name"]: row for row in rows}
        for mistake in found.mistakes:
            row = by_name[mistake.file_name]
            assert mistake.label == row["label"]
            assert mistake.predicted == row["top"][0]
            assert list(mistake.correct_multi_labels) == row["correct_multi_labels"]
            assert list(mistake.unclear_multi_labels) == row["unclear_multi_labels"]

        n = rng.choice([1, 3, 100])
        found = evaluation.confusion_pairs(labels, predictions, n)
        pairs = [(pair.label, pair.predicted, pair.count, pair.n) for pair in found]
        assert pairs == reference.confusions(n)


_RULES = {
    "top1": ("all", is_top1, "share"),
    "top5": ("all", is_top5, "share"),
    "per_class_accuracy": ("all", is_top1, "class_mean"),
    "multilabel_accuracy": ("clean", is_lenient, "class_mean"),
    "multilabel_accuracy_strict": ("clean", is_strict, "class_mean"),
    "imagenet_m": ("all", is_lenient, "share"),
    "real_accuracy": ("labelled", is_real, "share"),
}


def test_compare_equals_the_difference_of_the_second_implementation():
    assert set(_RULES) == set(evaluation.METRICS)
    for seed in range(100):
        rng = random.Random(seed)
        first = _random_rows(rng)
        labels = _labels(first, rng)
        second = [row | {"top": rng.sample(range(NUM_CLASSES), 5)} for row in first]
        for row in second:
            if rng.random() < 0.5:
                row["top"] = first[0]["top"]
        for metric, (which, is_right, mean) in _RULES.items():
            parts = []
            for rows in (first, second):
                reference = Reference(rows)
                counted = rows if which == "all" else getattr(reference, which)()
                parts.append((counted, getattr(reference, mean)(counted, is_right)))
            guesses = [[row["top"] for row in rows] for rows in (first, second)]
            found = _value(evaluation.compare, labels, *guesses, metric)
            if parts[0][1] is None:
                assert found is None
                continue
            assert found.value == pytest.approx(parts[0][1] - parts[1][1], abs=1e-15)
            rights = [[is_right(row) for row in counted] for counted, _ in parts]
            assert found.only_first == sum(a and not b for a, b in zip(*rights, strict=True))
            assert found.only_second == sum(b and not a for a, b in zip(*rights, strict=True))
            assert found.n == len(rights[0])
            assert found.interval.low <= found.interval.high


def test_compare_of_a_model_with_itself_leaves_room_for_doubt():
    labels = Labels([str(i) for i in range(50)], range(50))
    found = evaluation.compare(labels, range(50), range(50))
    assert found.value == 0
    assert found.interval.low < 0 < found.interval.high
    assert found.interval.low == pytest.approx(-found.interval.high)


def _timm_real_labels():
    """Returns timm's class; its package needs torchvision, this module of it only NumPy."""
    spec = importlib.util.find_spec("timm")
    path = Path(spec.submodule_search_locations[0]) / "data" / "real_labels.py"
    spec = importlib.util.spec_from_file_location("timm_real_labels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RealLabelsImagenet


@pytest.mark.torch
def test_real_accuracy_equals_timm_on_the_published_labels():
    real_json = published_file("real.json")
    timm_class = _timm_real_labels()
    import torch

    real = json.loads(real_json.read_text())
    names = [name.decode() for name in validation_image_names()]
    labels = Labels(names, validation_labels(), real_label=real)
    rng = np.random.default_rng(0)
    for number in range(20):
        order = rng.permutation(len(names))
        guess = np.where(rng.random(len(names)) < 0.6, validation_labels(), rng.integers(1000))
        theirs = timm_class([names[i] for i in order], real_json, topk=(1,))
        ranked = []
        for batch in np.split(order, 10):
            scores = torch.zeros((len(batch), NUM_CLASSES), dtype=torch.float32)
            if number == 0:
                # Once with noise, where the best of 1,000 logits is to be found by both.
                scores += torch.from_numpy(rng.standard_normal(scores.shape, dtype=np.float32))
            scores[torch.arange(len(batch)), torch.from_numpy(guess[batch])] += 4
            theirs.add_result(scores)
            top = Predictions.from_scores(scores).top_k if number == 0 else guess[batch, None]
            ranked.append(top)
        ours = Predictions(np.concatenate(ranked), [names[i] for i in order])
        found = evaluation.real_accuracy(labels, ours)
        assert found.value * 100 == theirs.get_accuracy(k=1)
        assert 0.3 < found.value < 0.7
        assert found.n + found.excluded[0].n == 50_000
        assert found.n == sum(bool(ids) for ids in real)


def test_results_are_json():
    rng = random.Random(3)
    rows = _random_rows(rng)
    rows[0]["is_problematic"] = False
    rows[0]["real_label"] = [1]
    labels = _labels(rows, rng)
    top = [row["top"] for row in rows]
    accuracy = evaluation.top1(labels, top)
    for result in (
        accuracy,
        evaluation.per_class_accuracy(labels, top),
        evaluation.multilabel_accuracy(labels, top),
        evaluation.real_accuracy(labels, top),
        evaluation.imagenet_m(labels, top),
        *evaluation.confusion_pairs(labels, top),
        evaluation.compare(labels, top, top, "multilabel_accuracy"),
        evaluation.v2_gap(accuracy, accuracy, evaluation.RECHT_2019),
        evaluation.v2_gap(accuracy, accuracy),
    ):
        plain = result.to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_per_class_to_dict_names_the_classes_and_lists_those_without_images():
    labels = Labels(["a", "b", "c"], [7, 7, 999])
    found = evaluation.per_class_accuracy(labels, [7, 0, 999])
    plain = found.per_class.to_dict()
    assert plain["classes"] == [
        {
            "class_id": 7,
            "wnid": wnids()[7],
            "class_name": "cock",
            "correct": 1,
            "n": 2,
            "accuracy": 0.5,
        },
        {
            "class_id": 999,
            "wnid": "n15075141",
            "class_name": "toilet tissue, toilet paper, bathroom tissue",
            "correct": 1,
            "n": 1,
            "accuracy": 1.0,
        },
    ]
    assert plain["without_images"] == [i for i in range(1000) if i not in (7, 999)]
    assert found.value == 0.75
    assert found.num_classes == 2
    assert found.per_class.worst(5) == (7, 999)


def test_excluded_images_are_named():
    labels = Labels(["a", "b"], [1, 2], real_label=[[1], []])
    found = evaluation.real_accuracy(labels, [1, 2])
    (excluded,) = found.excluded
    assert (excluded.n, excluded.file_names) == (1, ("b",))
    assert "no reassessed label" in excluded.reason

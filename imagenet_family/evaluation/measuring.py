"""Several models on several datasets: every metric, gap and paired difference at once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation import class_orders
from imagenet_family.evaluation.label_sources import IMAGENET_M, V2, LabelledSplit
from imagenet_family.metrics import accuracy
from imagenet_family.metrics.compare import PairedDifference, compare
from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.predictions import TOP_K, Predictions
from imagenet_family.metrics.results import (
    Accuracy,
    ClassAccuracy,
    ConfusionPair,
    ImagenetM,
    Result,
)
from imagenet_family.metrics.robustness import RECHT_2019, V2Gap, v2_gap

LINE_CONFIG = f"{V2}/matched-frequency"
# The datasets whose top-1 accuracy is that of the whole validation set, the best first.
_VALIDATION = ("imagenet2012", "imagenet2012_subset", "imagenet2012_real")
_NUM_WORST = 10
_NUM_SHOWN = 3

Metric = Accuracy | ClassAccuracy | ImagenetM


@dataclasses.dataclass(frozen=True)
class SplitSummary(Result):
    """What was measured on.

    Attributes:
        dataset: Dataset with its config.
        split: Its split.
        n: Number of images.
        origin: Where the labels were read.
    """

    dataset: str
    split: str
    n: int
    origin: str

    @property
    def title(self) -> str:
        """Dataset and split in one."""
        return f"{self.dataset} {self.split}"


@dataclasses.dataclass(frozen=True)
class ClassMistakes(Result):
    """A class that a model does badly on.

    Attributes:
        class_id: The class.
        correct: Number of its images that the model gets right.
        n: Number of its images.
        mistakes: File name and predicted class id of some of the others.
    """

    class_id: int
    correct: int
    n: int
    mistakes: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Confusion(Result):
    """Two classes that a model takes for each other.

    Attributes:
        pair: The classes and how often.
        file_names: Some of the images.
    """

    pair: ConfusionPair
    file_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SplitResult(Result):
    """What one model does on one split.

    Attributes:
        model: Name of the model.
        dataset: Dataset with its config.
        split: Its split.
        metrics: The metrics that this split is for, by name.
        worst: Its worst classes by top-1 accuracy, worst first.
        confusions: Its most frequent mistakes.
    """

    model: str
    dataset: str
    split: str
    metrics: Mapping[str, Metric]
    worst: tuple[ClassMistakes, ...] = ()
    confusions: tuple[Confusion, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelGap(Result):
    """What one model loses from validation to one config of ImageNetV2, in top-1 accuracy.

    Attributes:
        model: Name of the model.
        dataset: The config.
        validation: The dataset of the accuracy on validation.
        gap: The gap.
    """

    model: str
    dataset: str
    validation: str
    gap: V2Gap


@dataclasses.dataclass(frozen=True)
class ModelDifference(Result):
    """How two models differ on one split.

    Attributes:
        dataset: Dataset with its config.
        split: Its split.
        first: Name of the first model.
        second: Name of the second.
        difference: The first's value minus the second's.
    """

    dataset: str
    split: str
    first: str
    second: str
    difference: PairedDifference


@dataclasses.dataclass(frozen=True)
class Evaluation(Result):
    """Several models on several datasets.

    Attributes:
        models: Names of the models.
        splits: What they were measured on.
        results: One for each split and model, split by split.
        gaps: From validation to ImageNetV2, if both were measured.
        differences: Each metric between every two models.
        notes: What was not computed, and why.
        level: Nominal coverage of every interval.
    """

    models: tuple[str, ...]
    splits: tuple[SplitSummary, ...]
    results: tuple[SplitResult, ...]
    gaps: tuple[ModelGap, ...]
    differences: tuple[ModelDifference, ...]
    notes: tuple[str, ...]
    level: float

    def result(self, model: str, split: SplitSummary) -> SplitResult:
        """Gives what one model does on one split."""
        place = self.splits.index(split) * len(self.models) + self.models.index(model)
        return self.results[place]


def measure(
    splits: Sequence[LabelledSplit],
    predictions: Mapping[str, Sequence[Predictions]],
    *,
    level: float = LEVEL,
) -> Evaluation:
    """Computes everything that can be said of some models on some splits.

    Args:
        splits: The splits.
        predictions: For each model by name its predictions on each of the splits, in their order.
        level: Nominal coverage of the intervals.

    Raises:
        EvaluationError: Labels and predictions do not fit, or there are no models.
    """
    if not predictions:
        raise EvaluationError("There are no models to measure: pass the predictions of one.")
    results, differences, notes = [], [], []
    for number, split in enumerate(splits):
        found = {model: each[number] for model, each in predictions.items()}
        for model, values in found.items():
            k = values.top_k.shape[1]
            if split.split != IMAGENET_M and k < TOP_K:
                notes.append(
                    f"{split.title}: no top-5 accuracy of {model}, whose predictions have "
                    f"{k} class{'' if k == 1 else 'es'} an image."
                )
            suspicion = class_orders.suspicion(split.labels, values)
            if suspicion is not None:
                notes.append(f"{split.title}: {model} {suspicion}.")
            results.append(_measure(split, model, values, level))
        for first, second in itertools.combinations(found, 2):
            differences += _differences(split, first, second, found, level)
    gaps = _gaps(results)
    if any(split.dataset.startswith(V2) for split in splits) and not gaps:
        notes.append(
            "No gap between validation and ImageNetV2: name imagenet2012 too, and give the "
            "predictions for its validation images."
        )
    return Evaluation(
        tuple(predictions),
        tuple(SplitSummary(s.dataset, s.split, len(s.labels), s.origin) for s in splits),
        tuple(results),
        tuple(gaps),
        tuple(differences),
        tuple(notes),
        level,
    )


def _metric_names(split: LabelledSplit, k: int) -> list[str]:
    """Gives the metrics of `METRICS` that a split is for, the most important first."""
    if split.split == IMAGENET_M:
        return [IMAGENET_M]
    names = ["top1", "top5"] if k >= TOP_K else ["top1"]
    if split.labels.correct_multi_labels is not None:
        return ["multilabel_accuracy", "multilabel_accuracy_strict", *names]
    if split.labels.real_label is not None:
        return ["real_accuracy", *names]
    return names


def _measure(
    split: LabelledSplit, model: str, predictions: Predictions, level: float
) -> SplitResult:
    labels = split.labels
    found: dict[str, Metric] = {}
    for name in _metric_names(split, predictions.top_k.shape[1]):
        if name.startswith("multilabel_accuracy"):
            strict = name.endswith("_strict")
            found[name] = accuracy.multilabel_accuracy(
                labels, predictions, strict=strict, level=level
            )
        else:
            found[name] = getattr(accuracy, name)(labels, predictions, level=level)
    if split.split == IMAGENET_M:
        return SplitResult(model, split.dataset, split.split, found)
    by_class = accuracy.per_class_accuracy(labels, predictions, level=level)
    found["per_class_accuracy"] = by_class
    predicted = accuracy.align(labels, predictions)[:, 0]
    worst = tuple(
        ClassMistakes(
            class_id,
            int(by_class.per_class.correct[class_id]),
            int(by_class.per_class.total[class_id]),
            tuple(
                (labels.file_name[row], int(predicted[row]))
                for row in _first((labels.label == class_id) & (predicted != class_id))
            ),
        )
        for class_id in by_class.per_class.worst(_NUM_WORST)
        if by_class.per_class.accuracy[class_id] < 1
    )
    confusions = tuple(
        Confusion(
            pair,
            tuple(
                labels.file_name[row]
                for row in _first((labels.label == pair.label) & (predicted == pair.predicted))
            ),
        )
        for pair in accuracy.confusion_pairs(labels, predictions, _NUM_WORST)
    )
    return SplitResult(model, split.dataset, split.split, found, worst, confusions)


def _first(chosen: np.ndarray) -> list[int]:
    return np.flatnonzero(chosen)[:_NUM_SHOWN].tolist()


def _differences(
    split: LabelledSplit,
    first: str,
    second: str,
    found: Mapping[str, Predictions],
    level: float,
) -> list[ModelDifference]:
    k = min(found[first].top_k.shape[1], found[second].top_k.shape[1])
    return [
        ModelDifference(
            split.dataset,
            split.split,
            first,
            second,
            compare(split.labels, found[first], found[second], name, level=level),
        )
        for name in _metric_names(split, k)
    ]


def _gaps(results: Sequence[SplitResult]) -> list[ModelGap]:
    top1 = {(r.model, r.dataset): r.metrics["top1"] for r in results if "top1" in r.metrics}
    gaps = []
    for (model, dataset), v2 in top1.items():
        if not dataset.startswith(V2):
            continue
        validation = next(
            (
                name
                for wanted in _VALIDATION
                for who, name in top1
                if who == model and name.partition("/")[0] == wanted
            ),
            None,
        )
        if validation is not None:
            line = RECHT_2019 if dataset == LINE_CONFIG else None
            gap = v2_gap(top1[model, validation], v2, line)
            gaps.append(ModelGap(model, dataset, validation, gap))
    return gaps

"""Several models on several datasets: every metric, gap and paired difference at once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from imagenet_family.datasets.dataset import Split
from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation import class_orders
from imagenet_family.evaluation.label_sources import LabelledSplit
from imagenet_family.metrics import accuracy
from imagenet_family.metrics.compare import PairedDifference, compare
from imagenet_family.metrics.intervals import LEVEL
from imagenet_family.metrics.metric import Metric
from imagenet_family.metrics.predictions import Predictions, align
from imagenet_family.metrics.results import Accuracy, ConfusionPair, Measured, Result
from imagenet_family.metrics.robustness import Gap

_NUM_WORST = 10
_NUM_SHOWN = 3

_NOT_WRITTEN = {"written": False}


@dataclasses.dataclass(frozen=True)
class SplitSummary(Result):
    """What was measured on.

    Attributes:
        dataset: Dataset with its config.
        split: Its split.
        n: Number of images.
        origin: Where the labels were read.
        facts: What is known of the split.
    """

    dataset: str
    split: str
    n: int
    origin: str
    facts: Split = dataclasses.field(repr=False, metadata=_NOT_WRITTEN)

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
    metrics: Mapping[str, Measured]
    worst: tuple[ClassMistakes, ...] = ()
    confusions: tuple[Confusion, ...] = ()


@dataclasses.dataclass(frozen=True)
class ModelGap(Result):
    """What one model loses from validation to new images of its classes, in top-1 accuracy.

    Attributes:
        model: Name of the model.
        dataset: The dataset of the new images, with its config.
        validation: The dataset of the accuracy on validation.
        gap: The gap.
        facts: What is known of the new images.
    """

    model: str
    dataset: str
    validation: str
    gap: Gap
    facts: Split = dataclasses.field(repr=False, metadata=_NOT_WRITTEN)

    @property
    def title(self) -> str:
        """What people call the new images."""
        return self.facts.shift.title if self.facts.shift else self.dataset


@dataclasses.dataclass(frozen=True)
class ModelDifference(Result):
    """How two models differ on one split.

    Attributes:
        dataset: Dataset with its config.
        split: Its split.
        first: Name of the first model.
        second: Name of the second.
        difference: The first's value minus the second's.
        title: What people call what is compared.
    """

    dataset: str
    split: str
    first: str
    second: str
    difference: PairedDifference
    title: str = dataclasses.field(repr=False, metadata=_NOT_WRITTEN)


@dataclasses.dataclass(frozen=True)
class Evaluation(Result):
    """Several models on several datasets.

    Attributes:
        models: Names of the models.
        splits: What they were measured on.
        results: One for each split and model, split by split.
        gaps: From validation to new images, as ImageNetV2, if both were measured.
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
            notes += [
                f"{split.title}: no {metric.title} accuracy of {model}, whose predictions have "
                f"{k} class{'' if k == 1 else 'es'} an image."
                for metric in split.known.metrics
                if metric.top_k > k
            ]
            suspicion = class_orders.suspicion(split.labels, values)
            if suspicion is not None:
                notes.append(f"{split.title}: {model} {suspicion}.")
            results.append(_measure(split, model, values, level))
        for first, second in itertools.combinations(found, 2):
            differences += _differences(split, first, second, found, level)
    gaps = _gaps(splits, results, list(predictions))
    shifts = dict.fromkeys(split.known.shift.title for split in splits if split.known.shift)
    notes += [
        f"No gap between validation and {title}: name imagenet2012 too, and give the predictions "
        "for its validation images."
        for title in shifts
        if all(gap.title != title for gap in gaps)
    ]
    return Evaluation(
        tuple(predictions),
        tuple(SplitSummary(s.dataset, s.split, len(s.labels), s.origin, s.known) for s in splits),
        tuple(results),
        tuple(gaps),
        tuple(differences),
        tuple(notes),
        level,
    )


def _metrics(split: LabelledSplit, k: int) -> list[Metric]:
    """Gives the metrics that a split is for and predictions of k classes an image allow."""
    return [metric for metric in split.known.metrics if metric.top_k <= k]


def _measure(
    split: LabelledSplit, model: str, predictions: Predictions, level: float
) -> SplitResult:
    labels = split.labels
    metrics = _metrics(split, predictions.top_k.shape[1])
    found: dict[str, Measured] = {
        metric.name: metric(labels, predictions, level=level) for metric in metrics
    }
    if accuracy.TOP1 not in metrics:
        return SplitResult(model, split.dataset, split.split, found)
    by_class = accuracy.per_class_accuracy(labels, predictions, level=level)
    found[by_class.metric] = by_class
    predicted = align(labels, predictions)[:, 0]
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
    rows: list[int] = np.flatnonzero(chosen)[:_NUM_SHOWN].tolist()
    return rows


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
            compare(split.labels, found[first], found[second], metric, level=level),
            metric.difference_title,
        )
        for metric in _metrics(split, k)
    ]


def _gaps(
    splits: Sequence[LabelledSplit], results: Sequence[SplitResult], models: Sequence[str]
) -> list[ModelGap]:
    top1: dict[str, list[Accuracy]] = {}  # of each model, by dataset
    for number, split in enumerate(splits):
        of_split = results[number * len(models) : (number + 1) * len(models)]
        found = [result.metrics.get(accuracy.TOP1.name) for result in of_split]
        of_images = [each for each in found if isinstance(each, Accuracy)]
        if len(of_images) == len(found):
            top1[split.dataset] = of_images
    # The best first: where the images are as they are, then where they have other labels besides.
    validation = sorted(
        (split.known.alone is None, split.dataset)
        for split in splits
        if split.known.whole_validation and split.dataset in top1
    )
    if not validation:
        return []
    name = validation[0][1]
    return [
        ModelGap(
            model,
            split.dataset,
            name,
            split.known.shift.gap(top1[name][number], shifted, split.known.line),
            split.known,
        )
        for split in splits
        if split.known.shift
        for number, (model, shifted) in enumerate(zip(models, top1[split.dataset], strict=True))
    ]

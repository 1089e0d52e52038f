"""What the metrics return: a value, its interval, and what it was computed from."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagenet_family.labels.classes import class_names, wnids
from imagenet_family.metrics.intervals import Interval


class Result:
    """Base class of the results: frozen dataclasses that can be written as JSON.

    A field whose metadata has `"written": False` is left out there.
    """

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as dicts, lists, strings, numbers, bools and None."""
        plain: dict[str, Any] = _plain(self)
        return plain


@dataclasses.dataclass(frozen=True)
class Measured(Result):
    """What a metric gives.

    Attributes:
        metric: What was computed, as `top1`.
        value: A share, or a count of mistakes if it is an int.
        interval: Its interval.
        n: Number of images counted.
    """

    metric: str
    value: float
    interval: Interval
    n: int


@dataclasses.dataclass(frozen=True)
class Exclusion(Result):
    """Images that a metric does not count.

    Attributes:
        reason: Why, in words.
        n: How many.
        file_names: Which.
    """

    reason: str
    n: int
    file_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Accuracy(Measured):
    """A share of images.

    Attributes:
        metric: What was computed, as `top1`.
        value: `correct / n`, between 0 and 1.
        interval: Wilson's interval of it.
        n: Number of images counted.
        correct: Number of them on which the prediction is right.
        excluded: The images that were not counted.
    """

    correct: int
    excluded: tuple[Exclusion, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class PerClass(Result):
    """Counts for each of the 1,000 classes.

    Attributes:
        correct: int64 of shape (1000,), by class id.
        total: int64 of shape (1000,), images counted of each class.
    """

    correct: np.ndarray
    total: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """float64 of shape (1000,), NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            accuracy: np.ndarray = self.correct / self.total
        return accuracy

    @property
    def without_images(self) -> tuple[int, ...]:
        """Ids of the classes without images."""
        return tuple(np.nonzero(self.total == 0)[0].tolist())

    def worst(self, n: int = 20) -> tuple[int, ...]:
        """Returns the ids of the n least accurate classes, worst first, ties by class id."""
        order = np.argsort(self.accuracy, kind="stable")
        return tuple(order[self.total[order] > 0][:n].tolist())

    def to_dict(self) -> dict[str, Any]:
        """Returns a row for each class that has images, and the ids of the others."""
        accuracy = self.accuracy
        rows = [
            {
                "class_id": class_id,
                "wnid": wnids()[class_id],
                "class_name": class_names()[class_id],
                "correct": int(self.correct[class_id]),
                "n": int(self.total[class_id]),
                "accuracy": float(accuracy[class_id]),
            }
            for class_id in np.nonzero(self.total)[0].tolist()
        ]
        return {"classes": rows, "without_images": list(self.without_images)}


@dataclasses.dataclass(frozen=True, eq=False)
class ClassAccuracy(Measured):
    """A mean over classes of the accuracy of each class.

    Attributes:
        metric: What was computed, as `per_class_accuracy`.
        value: Mean over the classes that have images, the fraction rounded once to a float.
        interval: Bootstrap over these classes.
        n: Number of images counted.
        num_classes: Number of classes that have images; the others are in
            `per_class.without_images` and count neither as 0 nor as 1.
        per_class: The counts of each class.
        over_images: The same hits as a share of images.
        excluded: The images that were not counted.
    """

    num_classes: int
    per_class: PerClass
    over_images: Accuracy
    excluded: tuple[Exclusion, ...] = ()


@dataclasses.dataclass(frozen=True)
class Mistake(Result):
    """An image that a model gets wrong.

    Attributes:
        file_name: The image.
        label: Class id of the original ImageNet label.
        predicted: Class id that the model says.
    """

    file_name: str
    label: int
    predicted: int

    @property
    def would_pass(self) -> Mapping[str, tuple[int, ...]]:
        """The class ids that would not be a mistake, by what they are called."""
        return {"right": (self.label,)}


@dataclasses.dataclass(frozen=True)
class MistakeCount(Measured):
    """Mistakes one by one.

    Attributes:
        metric: What was computed.
        value: Number of mistakes.
        interval: Its interval.
        n: Number of images.
        mistakes: The mistakes, in the order of the labels.
    """

    value: int
    mistakes: tuple[Mistake, ...]


@dataclasses.dataclass(frozen=True)
class ConfusionPair(Result):
    """How often images of one class are taken for another.

    Attributes:
        label: Class id of the label.
        predicted: Class id of the prediction.
        count: Number of images of `label` predicted as `predicted`.
        n: Number of images of `label`.
    """

    label: int
    predicted: int
    count: int
    n: int


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: getattr(value, f.name)
            for f in dataclasses.fields(value)
            if f.metadata.get("written", True)
        }
        return {
            name: entry.to_dict() if isinstance(entry, Result) else _plain(entry)
            for name, entry in fields.items()
        }
    return value

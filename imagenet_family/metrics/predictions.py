"""Predictions in one form: the best class ids of each image, best first."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.labels.classes import NUM_CLASSES, wnid_to_id
from imagenet_family.metrics import label_columns
from imagenet_family.metrics.label_columns import Labels

TOP_K = 5
# A block of rows is copied and searched while it is in the processor's cache.
_BLOCK_ROWS = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about each image.

    Attributes:
        top_k: int64 class ids of shape (n, k), best first; each row has k different ids.
        file_names: The n image names, each different; None if the rows are in the order of the
            labels that they will be compared with.
    """

    top_k: np.ndarray
    file_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        names = self.file_names
        if names is not None:
            names = label_columns.file_names(names)
            label_columns.check_unique(names, "the predictions")
        top_k = np.asarray(self.top_k)
        if top_k.ndim == 1:
            top_k = top_k[:, None]
        if top_k.ndim != 2 or not top_k.shape[1]:
            raise EvaluationError(
                f"Predicted class ids have shape (n,) or (n, k): found {top_k.shape}."
            )
        if names is not None and len(names) != len(top_k):
            raise EvaluationError(
                f"There are {len(names):,} file names for {len(top_k):,} predictions: each "
                "prediction needs one."
            )
        hint = " If these are logits, pass floats."
        if top_k.dtype.kind in "iu" and top_k.size and top_k.min() >= 1 and top_k.max() == 1000:
            hint = " They seem to go from 1 to 1000: subtract one of each."
        top_k = label_columns.class_ids(top_k, "Predictions", names, hint)
        _check_distinct(top_k, names)
        object.__setattr__(self, "top_k", top_k)
        object.__setattr__(self, "file_names", names)

    def __len__(self) -> int:
        return len(self.top_k)

    @classmethod
    def from_wnids(cls, wnids: Any, file_names: Sequence[str] | None = None) -> Self:
        """Makes predictions out of wnids.

        Args:
            wnids: Strings such as `n01440764`, of shape (n,) or (n, k), best first.
            file_names: The n image names; None if the rows are in the order of the labels.

        Raises:
            EvaluationError: A string is not one of the 1,000 wnids.
        """
        wnids = np.asarray(wnids)
        if wnids.dtype.kind == "S":
            # Whatever the bytes are, this gives text for the message.
            wnids = np.char.decode(wnids, "latin-1")
        known = wnid_to_id()
        distinct, inverse = np.unique(wnids, return_inverse=True)
        ids = np.array([known.get(str(wnid), -1) for wnid in distinct])
        if (ids < 0).any():
            strangers = [str(wnid) for wnid in distinct[ids < 0]]
            # A column of class ids with one word in it is text as a whole: the word is to blame.
            strangers = [text for text in strangers if not text.isdecimal()] or strangers
            raise EvaluationError(
                f"{len(strangers):,} predicted labels are not among the 1,000 wnids of "
                f"ILSVRC-2012: {label_columns.some(strangers)}. Predictions are class ids from 0 "
                "to 999, wnids such as 'n01440764', or logits."
            )
        return cls(ids[inverse].reshape(wnids.shape), file_names)

    @classmethod
    def from_scores(
        cls, scores: Any, file_names: Sequence[str] | None = None, k: int = TOP_K
    ) -> Self:
        """Takes the k best classes out of logits or probabilities.

        Of classes with the same score the lower class id comes first.

        Args:
            scores: Floats of shape (n, 1000). -inf means that a class is not considered.
            file_names: The n image names; None if the rows are in the order of the labels.
            k: How many classes to keep of each image.

        Raises:
            EvaluationError: The scores have another shape or type, one of them is NaN or +inf,
                or a row has fewer than k finite scores.
        """
        scores = np.asarray(scores)
        if scores.dtype.kind != "f":
            raise EvaluationError(
                f"Logits are floats: found {scores.dtype}. Convert them to float32."
            )
        if scores.ndim != 2 or scores.shape[1] != NUM_CLASSES:
            hint = ""
            if scores.ndim == 2 and scores.shape[1] == NUM_CLASSES + 1:
                hint = " Models with a background class have it first: pass scores[:, 1:]."
            raise EvaluationError(
                f"Logits have shape (n, {NUM_CLASSES}), a column for each class in the order of "
                f"the class ids: found {scores.shape}.{hint}"
            )
        names = None if file_names is None else label_columns.file_names(file_names)
        return cls(_best(scores, names, k), names)

    def select(self, file_names: Sequence[str]) -> Self:
        """Returns the predictions of the named images, in that order.

        For predictions over a whole split, of which a dataset has a part: ImageNet-M is 68 of
        the 50,000 validation images.

        Raises:
            EvaluationError: The predictions have no names, or an image has no prediction.
        """
        if self.file_names is None:
            raise EvaluationError("Predictions without file names cannot be selected by name.")
        names = label_columns.file_names(file_names)
        row_of = {name: row for row, name in enumerate(self.file_names)}
        missing = [name for name in names if name not in row_of]
        if missing:
            raise EvaluationError(
                f"{len(missing):,} of {len(names):,} images have no prediction: "
                f"{label_columns.some(missing)}. Predict every image of the split."
            )
        rows = np.fromiter((row_of[name] for name in names), np.int64, len(names))
        return type(self)(self.top_k[rows], names)


def as_predictions(values: Any, file_names: Sequence[str] | None = None) -> Predictions:
    """Returns predictions in any of the accepted forms as `Predictions`.

    Args:
        values: One of: `Predictions`; integer class ids of shape (n,) or (n, k); wnids of shape
            (n,) or (n, k); float logits or probabilities of shape (n, 1000); or a mapping from
            file name to any of these for one image. Arrays of other frameworks are converted
            with `numpy.asarray`.
        file_names: The n image names; None if the rows are in the order of the labels.

    Raises:
        EvaluationError: The values are none of these.
    """
    if file_names is not None and isinstance(values, Predictions | Mapping):
        raise EvaluationError(
            "File names go with arrays of predictions: `Predictions` and mappings have their own."
        )
    if isinstance(values, Predictions):
        return values
    if isinstance(values, Mapping):
        file_names, values = list(values), list(values.values())
    try:
        values = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise EvaluationError(
            f"Predictions do not make an array: {error}. Every image needs the same number of "
            "class ids, wnids or logits, and tensors must be detached and in main memory."
        ) from None
    if not values.size:
        return Predictions(np.zeros(0, dtype=np.int64), file_names)
    if values.dtype.kind in "US":
        return Predictions.from_wnids(values, file_names)
    if values.dtype.kind == "f" and values.ndim == 2:
        return Predictions.from_scores(values, file_names)
    if values.dtype.kind not in "iu":
        raise EvaluationError(
            "Predictions are integer class ids or wnids of shape (n,) or (n, k), or float logits "
            f"of shape (n, {NUM_CLASSES}): found {values.dtype} of shape {values.shape}."
        )
    return Predictions(values, file_names)


def align(labels: Labels, predictions: Any) -> np.ndarray:
    """Returns the predicted class ids in the order of the labels.

    Args:
        labels: The labels.
        predictions: Anything that `as_predictions` takes.

    Returns:
        int64 of shape (len(labels), k), best first.

    Raises:
        EvaluationError: An image has no prediction, or a prediction no image.
    """
    found = as_predictions(predictions)
    if found.file_names is None:
        if len(found) != len(labels):
            raise EvaluationError(
                f"There are {len(found):,} predictions for {len(labels):,} images, and no "
                "file names to tell which is which. Pass one prediction an image, in the order "
                "of the labels, or pass the file names too."
            )
        return found.top_k
    if found.file_names == labels.file_name:
        return found.top_k
    known = set(labels.file_name)
    extra = [name for name in found.file_names if name not in known]
    if extra:
        raise EvaluationError(
            f"{len(extra):,} of {len(found):,} predictions are for images that the labels "
            f"do not have: {label_columns.some(extra)}. The labels are for "
            f"{len(labels):,} images such as {labels.file_name[0]!r}. If the predictions cover "
            "more than this dataset, pass predictions.select(labels.file_name)."
        )
    return found.select(labels.file_name).top_k


def _best(scores: np.ndarray, names: Sequence[str] | None, k: int) -> np.ndarray:
    """Returns the k best classes of each row, ties by class id, after checking the scores."""
    if not 1 <= k <= NUM_CLASSES:
        raise EvaluationError(f"k goes from 1 to {NUM_CLASSES}: found {k}.")
    best = np.empty((len(scores), k), dtype=np.int64)
    values = np.empty((len(scores), k))
    for start in range(0, len(scores), _BLOCK_ROWS):
        # Half precision has no fast search; every half is exactly a single.
        block = scores[start : start + _BLOCK_ROWS]
        block = block.astype(np.result_type(block, np.float32))
        rows = np.arange(len(block))
        for rank in range(k):
            # argmax gives the first of equal values, and the first NaN where there is one.
            chosen = block.argmax(axis=1)
            best[start + rows, rank] = chosen
            values[start + rows, rank] = block[rows, chosen]
            block[rows, chosen] = -np.inf
    bad = np.nonzero(np.isnan(values).any(axis=1) | (values == np.inf).any(axis=1))[0]
    if bad.size:
        raise EvaluationError(
            f"{bad.size:,} of {len(scores):,} images have logits that are NaN or +inf: "
            f"{label_columns.rows_of(bad, names)}. Half precision overflows easily: compute "
            "these images in float32."
        )
    short = np.nonzero(np.isneginf(values).any(axis=1))[0]
    if short.size:
        raise EvaluationError(
            f"{short.size:,} of {len(scores):,} images have fewer than {k} finite logits: "
            f"{label_columns.rows_of(short, names)}."
        )
    return best


def _check_distinct(top_k: np.ndarray, names: Sequence[str] | None) -> None:
    ordered = np.sort(top_k, axis=1)
    repeated = np.nonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))[0]
    if repeated.size:
        raise EvaluationError(
            f"{repeated.size:,} of {len(top_k):,} predictions name a class more than once: "
            f"{label_columns.rows_of(repeated, names)}. The k guesses of an image are different "
            "classes; if these are logits, pass floats."
        )

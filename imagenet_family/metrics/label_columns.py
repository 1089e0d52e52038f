"""The labels that predictions are compared with: columns, one row an image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from imagenet_family.errors import EvaluationError
from imagenet_family.labels.classes import NUM_CLASSES

_NUM_NAMED = 5
_MAX_NAME = 100


@dataclasses.dataclass(frozen=True, eq=False)
class LabelSets:
    """A set of class ids for each image, stored flat.

    Attributes:
        ids: int64 of shape (m,), the class ids of all images one after the other.
        rows: int64 of shape (m,), the row of the image that each id belongs to, ascending.
        num_rows: Number of images.
    """

    ids: np.ndarray
    rows: np.ndarray
    num_rows: int

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], column: str = "labels") -> Self:
        """Makes sets out of one sequence of class ids an image; the sequences may be empty.

        Raises:
            EvaluationError: An image has no sequence, or one of something else than integers
                from 0 to 999.
        """
        try:
            sizes = np.fromiter((len(ids) for ids in lists), np.int64, len(lists))
        except TypeError:
            raise EvaluationError(
                f"{column}: expected a sequence of class ids for each image, empty where there "
                "is none."
            ) from None
        flat = [label for ids in lists for label in ids]
        return cls.from_flat(flat, np.cumsum(sizes), column)

    @classmethod
    def from_flat(cls, values: Any, ends: np.ndarray, column: str = "labels") -> Self:
        """Makes sets out of the class ids of all images one after the other.

        Args:
            values: The class ids.
            ends: int64 of shape (n,), where the class ids of each image end in `values`.
            column: What they are, for the message.

        Raises:
            EvaluationError: Something is not an integer from 0 to 999, or the ends do not fit.
        """
        ids = class_ids(values, column)
        sizes = np.diff(ends, prepend=0)
        if (sizes < 0).any() or sizes.sum() != len(ids):
            raise EvaluationError(f"{column}: {len(ids):,} class ids do not end where they say.")
        return cls(ids, np.repeat(np.arange(len(sizes)), sizes), len(sizes))

    def sizes(self) -> np.ndarray:
        """Returns the number of class ids of each image, int64 of shape (num_rows,)."""
        return np.bincount(self.rows, minlength=self.num_rows)

    def contain(self, predicted: np.ndarray) -> np.ndarray:
        """Returns whether each image's set has that image's prediction.

        Args:
            predicted: int64 class ids of shape (num_rows,).

        Returns:
            bool of shape (num_rows,).
        """
        hits = np.zeros(self.num_rows, dtype=bool)
        hits[self.rows[self.ids == predicted[self.rows]]] = True
        return hits

    def of(self, row: int) -> tuple[int, ...]:
        """Returns the class ids of one image."""
        start, stop = np.searchsorted(self.rows, [row, row + 1])
        return tuple(self.ids[start:stop].tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """The labels of the images of one split, in columns named as the features of the datasets.

    Attributes:
        file_name: The n image names, each different.
        label: int64 of shape (n,), class ids: `label`, or `original_label` where a dataset has
            better labels too.
        correct_multi_labels: Of `imagenet2012_multilabel`: the classes that an image shows.
        unclear_multi_labels: The classes that the experts did not agree on.
        wrong_multi_labels: The classes that an image was found not to show.
        is_problematic: bool of shape (n,), images that multi-label accuracy leaves out.
        real_label: Of `imagenet2012_real`: the classes that an image shows, possibly none.
    """

    file_name: Sequence[str]
    label: np.ndarray
    correct_multi_labels: LabelSets | None = None
    unclear_multi_labels: LabelSets | None = None
    wrong_multi_labels: LabelSets | None = None
    is_problematic: np.ndarray | None = None
    real_label: LabelSets | None = None

    def __post_init__(self) -> None:
        names = file_names(self.file_name)
        check_unique(names, "the labels")
        if not names:
            raise EvaluationError("There are no labels: the split has no images.")
        columns: dict[str, Any] = {
            "file_name": names,
            "label": class_ids(
                self.label, "label", names, " The images of a test split have the label -1."
            ),
        }
        for field in dataclasses.fields(self)[2:]:
            values = getattr(self, field.name)
            if values is None:
                continue
            if field.name == "is_problematic":
                columns[field.name] = _flags(values, field.name)
            elif not isinstance(values, LabelSets):
                columns[field.name] = LabelSets.from_lists(values, field.name)
        for name, values in columns.items():
            object.__setattr__(self, name, values)
        for field in dataclasses.fields(self)[1:]:
            _check_length(field.name, getattr(self, field.name), len(names))

    def __len__(self) -> int:
        return len(self.file_name)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Self:
        """Makes labels out of the columns of a dataset; other columns, as `image`, are ignored.

        Args:
            columns: By feature name: `file_name` of n names, `label` or `original_label` of n
                class ids, and where the dataset has them `correct_multi_labels`,
                `unclear_multi_labels`, `wrong_multi_labels` and `real_label` of n sequences of
                class ids, and `is_problematic` of n bools.

        Raises:
            EvaluationError: A column is missing, has another length than `file_name`, or holds
                something else than class ids, as the test split does.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        chosen = {name: values for name, values in columns.items() if name in known}
        if "label" not in chosen and "original_label" in columns:
            chosen["label"] = columns["original_label"]
        missing = sorted({"file_name", "label"} - chosen.keys())
        if missing:
            raise EvaluationError(
                f"Labels need the columns file_name and label (or original_label): found "
                f"{sorted(columns)}, without {' and '.join(missing)}."
            )
        return cls(**chosen)

    def column(self, name: str) -> Any:
        """Returns a column that a metric needs.

        Raises:
            EvaluationError: These labels do not have it.
        """
        values = getattr(self, name)
        if values is None:
            raise EvaluationError(
                f"This metric compares predictions with the column {name}, and these labels have "
                f"none. Take the labels of imagenet2012_multilabel for multi-label accuracy and "
                f"ImageNet-M, those of imagenet2012_real for ReaL accuracy."
            )
        return values


def class_ids(
    values: Any, what: str, names: Sequence[str] | None = None, hint: str = ""
) -> np.ndarray:
    """Returns class ids as int64, checked.

    Args:
        values: Integers of any shape.
        what: What they are, for the message.
        names: The image names of the rows, for the message.
        hint: A sentence at the end of the message about values that are out of range.

    Raises:
        EvaluationError: A value is not an integer from 0 to 999.
    """
    try:
        ids = np.asarray(values)
    except ValueError:
        raise EvaluationError(f"{what}: expected one class id an image, found lists.") from None
    if not ids.size:
        return ids.astype(np.int64)
    if ids.dtype.kind not in "iu":
        raise EvaluationError(
            f"{what}: expected integer class ids from 0 to {NUM_CLASSES - 1}, found {ids.dtype}."
        )
    outside = (ids < 0) | (ids >= NUM_CLASSES)
    if outside.any():
        raise EvaluationError(
            f"{what}: class ids go from 0 to {NUM_CLASSES - 1}, {np.count_nonzero(outside):,} are "
            f"outside, such as {_where(ids, outside, names)}.{hint}"
        )
    return ids.astype(np.int64)


def file_names(values: Any) -> tuple[str, ...]:
    """Returns image names as strings; bytes are taken as UTF-8.

    Raises:
        EvaluationError: A name is not text.
    """
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, str | bytes):
        raise EvaluationError(f"Expected a list of file names, found the single name {values!r}.")
    names: Any = tuple(values)
    if set(map(type, names)) <= {str}:  # the usual case, quickly
        return names
    values, names = names, []
    for row, name in enumerate(values):
        try:
            names.append(name.decode("utf-8") if isinstance(name, bytes) else name)
        except UnicodeDecodeError:
            raise EvaluationError(f"File name {row} is not UTF-8: {name!r}.") from None
        if not isinstance(names[-1], str):
            raise EvaluationError(
                f"File name {row} is not text: found {name!r} of type {type(name).__name__}."
            )
    return tuple(names)


def check_unique(names: Sequence[str], what: str) -> None:
    """Raises EvaluationError if a file name occurs more than once."""
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for name in names:
        if name in seen:
            repeated[name] = None
        seen.add(name)
    raise EvaluationError(
        f"{len(repeated):,} file names occur more than once in {what}: {some(list(repeated))}. "
        "Each image is counted once: remove the repeated rows."
    )


def some(names: Sequence[str]) -> str:
    """Returns the first few names for a message."""
    shown = ", ".join(_quoted(name) for name in names[:_NUM_NAMED])
    return shown + (", …" if len(names) > _NUM_NAMED else "")


def _quoted(name: str) -> str:
    return repr(name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "…")


def rows_of(rows: np.ndarray, names: Sequence[str] | None) -> str:
    """Returns the first few rows for a message: their image names, or else their numbers."""
    rows = np.asarray(rows).tolist()
    if names is not None:
        return some([names[row] for row in rows[: _NUM_NAMED + 1]])
    shown = ", ".join(str(row) for row in rows[:_NUM_NAMED])
    return f"rows {shown}" + (", …" if len(rows) > _NUM_NAMED else "")


def _where(ids: np.ndarray, outside: np.ndarray, names: Sequence[str] | None) -> str:
    rows = np.nonzero(outside)[0]
    values = ids[outside]
    shown = [
        f"{value} ({rows_of(rows[i : i + 1], names)})"
        for i, value in enumerate(values[:_NUM_NAMED].tolist())
    ]
    return ", ".join(shown) + (", …" if len(values) > _NUM_NAMED else "")


def _flags(values: Any, what: str) -> np.ndarray:
    flags = np.asarray(values)
    if flags.dtype != bool:
        raise EvaluationError(f"{what}: expected booleans, found {flags.dtype}.")
    return flags


def _check_length(column: str, values: Any, expected: int) -> None:
    if values is None:
        return
    found = values.num_rows if isinstance(values, LabelSets) else values.size
    if found != expected or (isinstance(values, np.ndarray) and values.ndim != 1):
        raise EvaluationError(
            f"Column {column} of the labels: expected one entry for each of the {expected:,} "
            f"images, found {found:,}"
            + (f" of shape {values.shape}." if isinstance(values, np.ndarray) else ".")
        )

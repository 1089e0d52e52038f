"""The labels that predictions are compared with: columns, one row an image."""

import dataclasses
import types
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


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Labels:
    """The labels of the images of one split, in columns named as the features of the datasets.

    A dataset may have further columns, which its own metrics compare with: sets of class ids, in
    columns whose names end in `_label` or `_labels`, and flags, in columns whose names begin with
    `is_`. They are attributes too, None where there is no such column: `labels.real_label`.

    Attributes:
        file_name: The n image names, each different.
        label: int64 of shape (n,), class ids: `label`, or `original_label` where a dataset has
            better labels too.
        columns: The further columns by name: `LabelSets`, or bool of shape (n,).
    """

    file_name: tuple[str, ...]
    label: np.ndarray
    columns: Mapping[str, LabelSets | np.ndarray]

    def __init__(self, file_name: Any, label: Any, **columns: Any) -> None:
        """Makes labels.

        Args:
            file_name: The n image names.
            label: n class ids.
            **columns: Further columns: n sequences of class ids, or n bools.

        Raises:
            EvaluationError: There are no images, or a column has another length, or holds something
                else.
        """
        names = file_names(file_name)
        check_unique(names, "the labels")
        if not names:
            raise EvaluationError("There are no labels: the split has no images.")
        object.__setattr__(self, "file_name", names)
        hint = " The images of a test split have the label -1."
        object.__setattr__(self, "label", class_ids(label, "label", names, hint))
        further = {name: _column(name, v) for name, v in columns.items() if v is not None}
        object.__setattr__(self, "columns", types.MappingProxyType(further))
        for name, values in {"label": self.label, **further}.items():
            _check_length(name, values, len(names))

    def __len__(self) -> int:
        return len(self.file_name)

    def __getattr__(self, name: str) -> Any:
        if name == "columns" or name.startswith("_"):  # asked for before `__init__`, as by `copy`
            raise AttributeError(name)
        return self.columns.get(name)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Self:
        """Makes labels out of the columns of a dataset; other columns, as `image`, are ignored.

        Args:
            columns: By feature name: `file_name` of n names, `label` or `original_label` of n
                class ids, and what a dataset has besides: in columns called `…_label` or
                `…_labels` n sequences of class ids, as `real_label`, and in columns called `is_…`
                n bools, as `is_problematic`.

        Raises:
            EvaluationError: A column is missing, has another length than `file_name`, or holds
                something else than class ids, as the test split does.
        """
        chosen = {
            name: values
            for name, values in columns.items()
            if name in ("file_name", "label") or _is_further(name, values)
        }
        if "label" not in chosen and "original_label" in columns:
            chosen["label"] = columns["original_label"]
        missing = sorted({"file_name", "label"} - chosen.keys())
        if missing:
            raise EvaluationError(
                f"Labels need the columns file_name and label (or original_label): found "
                f"{sorted(columns)}, without {' and '.join(missing)}."
            )
        return cls(**chosen)

    def column(self, name: str, dataset: str) -> Any:
        """Returns a column that a metric needs.

        Args:
            name: Its name.
            dataset: A dataset that has it, for the message.

        Raises:
            EvaluationError: These labels do not have it.
        """
        if name not in self.columns:
            raise EvaluationError(
                f"This metric compares predictions with the column {name}, and these labels have "
                f"none. Take the labels of {dataset}."
            )
        return self.columns[name]


def _is_further(name: str, values: Any) -> bool:
    """Tells whether a column is one that a metric can compare with."""
    if name.startswith("is_"):
        return True
    # One class an image in an array is a label that no metric here is for.
    single = isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.ndim == 1
    return name.endswith(("_label", "_labels")) and name != "original_label" and not single


def _column(name: str, values: Any) -> LabelSets | np.ndarray:
    if name.startswith("is_"):
        return _flags(values, name)
    return values if isinstance(values, LabelSets) else LabelSets.from_lists(values, name)


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
    found: tuple[Any, ...] = tuple(values)
    if set(map(type, found)) <= {str}:  # the usual case, quickly
        return found
    names: list[str] = []
    for row, name in enumerate(found):
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


def _check_length(column: str, values: LabelSets | np.ndarray, expected: int) -> None:
    found = values.num_rows if isinstance(values, LabelSets) else values.size
    if found != expected or (isinstance(values, np.ndarray) and values.ndim != 1):
        raise EvaluationError(
            f"Column {column} of the labels: expected one entry for each of the {expected:,} "
            f"images, found {found:,}"
            + (f" of shape {values.shape}." if isinstance(values, np.ndarray) else ".")
        )

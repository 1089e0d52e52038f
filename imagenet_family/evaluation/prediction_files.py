"""Prediction files: CSV, JSON lines, JSON, Parquet, NPZ and NPY.

Every format but NPY has the same columns, one row an image:

- `file_name` (or `filename`): the image, as in the dataset's feature `file_name`;
- and one of
  - `prediction`: the best class, as a class id or a wnid;
  - `top5`: the five best classes, best first, as class ids or wnids: a list in JSON and Parquet,
    an array of shape (n, 5) in NPZ, separated by blanks in CSV;
  - `logits`: 1,000 logits or probabilities, in the order of the class ids: a list in JSON and
    Parquet, an array of shape (n, 1000) in NPZ; not in CSV;
  - `index`, or `index_0`, `index_1`, …: the best classes, as timm's `inference.py` writes them with
    `--include-index`, and `prob` or `logit` where it writes those of all classes.

Other columns are ignored. NPY holds one array in the order of the sorted file names: class ids of
shape (n,) or (n, k), or logits of shape (n, 1000). The suffix of the file says the format, before
a `.gz` if it is compressed.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from imagenet_family.errors import EvaluationError, MissingFileError, UsageError
from imagenet_family.evaluation import prediction_formats as formats
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics import label_columns
from imagenet_family.metrics.predictions import TOP_K, Predictions, as_predictions
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike, name_of

_NAME_COLUMNS = ("file_name", "filename")
_VALUE_COLUMNS = ("prediction", "top5", "logits")
_INDEX, _SCORES = "index", ("logit", "prob")  # of timm
_BEST = "index"  # the best classes, any number of them
# pandas makes floats of class ids where one of them was missing.
_INTEGER = re.compile(r"(-?[0-9]{1,9})(?:\.0*)?")


class _Chosen(NamedTuple):
    """Which columns are read, and what they hold: one of `_VALUE_COLUMNS` or `_BEST`."""

    names: str
    values: tuple[str, ...]
    kind: str


def read_predictions(path: PathLike) -> Predictions:
    """Reads a prediction file; see the module for its columns.

    Args:
        path: A file with the suffix `.csv`, `.jsonl`, `.json`, `.parquet`, `.npz` or `.npy`; the
            first three may be compressed (`.csv.gz`).

    Returns:
        The predictions; those of an NPY file have no file names.

    Raises:
        MissingFileError: There is no such file.
        UsageError: The suffix is none of these.
        EvaluationError: The file is damaged, lacks a column, or a prediction cannot be used.
    """
    name = name_of(path).lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in (*_READERS, ".npy") or (name.endswith(".gz") and suffix not in _TEXT):
        raise UsageError(
            f"{path}: a prediction file ends in {', '.join(_READERS)} or .npy; found "
            f"{Path(name).suffix!r}."
        )
    if not files.exists(path):
        raise MissingFileError(f"{path}: there is no such prediction file.")
    try:
        with files.open_read(path) as file:
            if suffix == ".npy":
                return _of_array(formats.read_npy(file))
            if name.endswith(".gz"):
                return _of_columns(cast(BinaryIO, gzip.open(file)), _READERS[suffix])
            return _of_columns(file, _READERS[suffix])
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:  # the last two of gzip
        raise EvaluationError(f"{path}: cannot be read: {error}.") from error


def write_template(path: PathLike, file_names: Iterable[str]) -> None:
    """Writes a prediction file with the file names, and the predictions left to fill in.

    Args:
        path: The file to write, with the suffix `.csv` or `.jsonl`; it must not exist, so that no
            filled-in file is lost.
        file_names: The images, one a row.

    Raises:
        UsageError: The suffix is another, or the file exists.
        BuildError: It cannot be written.
    """
    suffix = Path(name_of(path)).suffix
    if suffix.lower() not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: a template ends in .csv or .jsonl; found {suffix!r}.")
    if files.exists(path):
        raise UsageError(f"{path}: the file exists already; delete it or choose another name.")
    text = io.StringIO(newline="")
    if suffix.lower() == ".csv":
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file_name", "prediction"])
        writer.writerows([name, ""] for name in file_names)
    else:
        for name in file_names:
            row = {"file_name": name, "prediction": None}
            text.write(json.dumps(row, ensure_ascii=False) + "\n")
    files.write_output(path, text.getvalue().encode())


_Reader = Callable[[BinaryIO, formats.Choose], Mapping[str, Any]]

_READERS: dict[str, _Reader] = {
    ".csv": formats.read_csv,
    ".jsonl": formats.read_json_lines,
    ".json": formats.read_json,
    ".parquet": formats.read_parquet,
    ".npz": formats.read_npz,
}
_TEXT = (".csv", ".jsonl", ".json")


def _of_columns(file: BinaryIO, reader: _Reader) -> Predictions:
    chosen = _Chosen("", (), "")

    def choose(found: Iterable[str]) -> tuple[str, ...]:
        nonlocal chosen
        chosen = _choose(list(found))
        if chosen.kind == "logits" and reader is formats.read_csv:
            raise EvaluationError(
                "logits are not read from CSV: write them as .npz, or the five best classes as "
                "top5."
            )
        return (chosen.names, *chosen.values)

    columns = reader(file, choose)
    names = label_columns.file_names(columns[chosen.names])
    values: Any = columns[chosen.values[0]]
    if len(chosen.values) > 1:
        values = [list(row) for row in zip(*(columns[name] for name in chosen.values), strict=True)]
    return _predictions(names, values, chosen)


def _choose(found: list[str]) -> _Chosen:
    """Says which columns have the predictions, by their names."""
    names = [name for name in found if name in _NAME_COLUMNS]
    own = [name for name in found if name in _VALUE_COLUMNS]
    if len(names) == 1 and len(own) == 1:
        return _Chosen(names[0], (own[0],), own[0])
    if len(names) == 1 and not own:
        ranked = list(
            itertools.takewhile(found.__contains__, (f"{_INDEX}_{i}" for i in range(NUM_CLASSES)))
        )
        if ranked or found.count(_INDEX) == 1:
            return _Chosen(names[0], tuple(ranked or [_INDEX]), _BEST)
        scores = [name for name in found if name in _SCORES]
        if len(scores) == 1 and "label" not in found:
            return _Chosen(names[0], (scores[0],), "logits")
    raise EvaluationError(
        f"expected the column file_name and one of {', '.join(_VALUE_COLUMNS)} (or {_INDEX}, as "
        "timm's inference.py writes with --include-index); found the columns "
        f"{label_columns.some(found)}."
    )


def _of_array(values: np.ndarray) -> Predictions:
    """Gives the predictions of an array in the order of the file names."""
    if not values.size:
        raise EvaluationError("the file has no predictions.")
    if values.dtype.kind == "f" and values.ndim == 2:
        return Predictions.from_scores(values)
    return as_predictions(_classes(values))


def _predictions(names: tuple[str, ...], values: Any, chosen: _Chosen) -> Predictions:
    column = chosen.values[0]
    if not names:
        raise EvaluationError("the file has no predictions.")
    if len(values) != len(names):
        raise EvaluationError(
            f"{len(names):,} file names, but {len(values):,} entries in {column}."
        )
    empty = [name for name, value in zip(names, values, strict=True) if _is_empty(value)]
    if empty:
        raise EvaluationError(
            f"{len(empty):,} of {len(names):,} images have no {column}: "
            f"{label_columns.some(empty)}. Predict every image."
        )
    if chosen.kind == "logits":
        return Predictions.from_scores(_floats(values), names)
    classes = _classes(values, split=chosen.kind != "prediction")
    if chosen.kind == _BEST:
        classes = [row[:TOP_K] if isinstance(row, list) else row for row in classes]
    predictions = as_predictions(classes, names)
    found = predictions.top_k.shape[1]
    if chosen.kind == "top5" and found != TOP_K:
        raise EvaluationError(f"top5: expected five classes an image, found {found}.")
    if chosen.kind == "prediction" and found != 1:
        raise EvaluationError(
            f"prediction: expected one class an image, found {np.shape(classes)[1]} values; "
            "several classes go into the column top5, logits into logits."
        )
    return predictions


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip(" []")
    if isinstance(value, float):  # NaN is how pandas says that there is none
        return value != value
    return value is None or (isinstance(value, list) and any(each is None for each in value))


def _floats(values: Any) -> np.ndarray:
    try:
        scores = np.asarray(values)
        # Logits that all happen to be whole numbers are still logits.
        return scores.astype(np.float64) if scores.dtype.kind in "iu" else scores
    except ValueError as error:
        raise EvaluationError(f"logits: every image needs {NUM_CLASSES}: {error}.") from None


def _classes(values: Any, *, split: bool = False) -> Any:
    """Gives class ids or wnids as numbers and text, whichever way they were written.

    Args:
        values: One entry an image: a number, text, or a list of these.
        split: Whether text without brackets, too, is several classes separated by blanks.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind != "f" or (values.ndim == 2 and values.shape[1] == NUM_CLASSES):
            return values
        whole = values.astype(np.int64)
        return whole if (whole == values).all() else values
    entries = [_entry(value, split) for value in values]
    flat = itertools.chain.from_iterable(e if isinstance(e, list) else [e] for e in entries)
    if all(isinstance(entry, int) for entry in flat):
        return entries
    # A column with a wnid in it is text as a whole, so that the message names what is to blame.
    if any(isinstance(v, str) for v in values):
        return [_as_text(entry) for entry in entries]
    return entries


def _entry(value: Any, split: bool) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_entry(each, False) for each in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if not isinstance(value, str):
        return value
    text = value.strip()
    inside = text.removeprefix("[").removesuffix("]")
    if split or inside != text:
        return [_entry(part, False) for part in inside.replace(",", " ").split()]
    number = _INTEGER.fullmatch(text)
    return int(number[1]) if number else text.strip("'\"")


def _as_text(entry: Any) -> Any:
    return [_as_text(each) for each in entry] if isinstance(entry, list) else str(entry)
